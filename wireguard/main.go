// wireguard-go that writes WARP's three reserved bytes: `WG_RESERVED=1,2,3 wireguard-go -f wg0`.
//
// Unset they are zeros, as in standard WireGuard. It stays in the foreground, with or without -f.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.zx2c4.com/wireguard/conn"

	"ss-warp/wireguard/engine"
)

// version is that of the library, set while linking.
var version = "unknown"

func main() {
	arguments := os.Args[1:]
	if len(arguments) == 1 && arguments[0] == "--version" {
		fmt.Println("wireguard-go", version, "with reserved bytes")
		return
	}
	if len(arguments) > 0 && arguments[0] == "-f" {
		arguments = arguments[1:]
	}
	if len(arguments) != 1 {
		fail(fmt.Errorf("usage: wireguard-go [-f] INTERFACE"))
	}
	reserved, err := parse(os.Getenv("WG_RESERVED"))
	if err != nil {
		fail(err)
	}
	if err := engine.Run(arguments[0], &Bind{Bind: conn.NewStdNetBind(), reserved: reserved}); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "wireguard-go:", err)
	os.Exit(1)
}

func parse(text string) (reserved [3]byte, err error) {
	if text == "" {
		return reserved, nil
	}
	numbers := strings.Split(text, ",")
	for i, number := range numbers {
		value, err := strconv.ParseUint(number, 10, 8)
		if err != nil || len(numbers) != len(reserved) {
			return reserved, fmt.Errorf("WG_RESERVED=%s: expected three bytes, e.g. 1,2,3", text)
		}
		reserved[i] = byte(value)
	}
	return reserved, nil
}
