// The edge's WireGuard: `WG_CLIENT_ID=1,2,3 WG_LEDGER=FILE wireguard-edge INTERFACE`.
//
// It answers with the reserved bytes it was asked with, and counts datagrams that carry the device's
// bytes and that do not; those can be refused. The ledger, a file that both sides map, is three
// uint64: refuse (0 or 1), with, without.
package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.zx2c4.com/wireguard/conn"

	"ss-warp/wireguard/engine"
)

type ledger struct{ refuse, with, without atomic.Uint64 }

type edge struct {
	conn.Bind
	device [3]byte
	ledger *ledger
	asked  atomic.Pointer[[3]byte]
}

func (edge *edge) Send(datagrams [][]byte, to conn.Endpoint) error {
	if asked := edge.asked.Load(); asked != nil {
		for _, datagram := range datagrams {
			copy(datagram[1:], asked[:])
		}
	}
	return edge.Bind.Send(datagrams, to)
}

func (edge *edge) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	receivers, port, err := edge.Bind.Open(port)
	for i, receive := range receivers {
		receivers[i] = func(datagrams [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
			count, err := receive(datagrams, sizes, from)
			for j := range count {
				if sizes[j] > 3 && !edge.takes(datagrams[j]) {
					sizes[j] = 0
				}
			}
			return count, err
		}
	}
	return receivers, port, err
}

// takes looks at the bytes and clears them: the MACs are made over zeros.
func (edge *edge) takes(datagram []byte) bool {
	bytes := [3]byte(datagram[1:4])
	clear(datagram[1:4])
	if bytes == edge.device {
		edge.ledger.with.Add(1)
	} else {
		edge.ledger.without.Add(1)
		if edge.ledger.refuse.Load() != 0 {
			return false
		}
	}
	if asked := edge.asked.Load(); asked == nil || *asked != bytes {
		edge.asked.Store(&bytes)
	}
	return true
}

func main() {
	edge := &edge{Bind: conn.NewStdNetBind()}
	_, err := fmt.Sscanf(os.Getenv("WG_CLIENT_ID"), "%d,%d,%d", &edge.device[0], &edge.device[1], &edge.device[2])
	if err == nil {
		edge.ledger, err = open(os.Getenv("WG_LEDGER"))
	}
	if err == nil {
		err = engine.Run(os.Args[1], edge)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wireguard-edge:", err)
		os.Exit(1)
	}
}

func open(path string) (*ledger, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	size := int(unsafe.Sizeof(ledger{}))
	memory, err := syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*ledger)(unsafe.Pointer(&memory[0])), nil
}
