// Package engine runs wireguard-go on a TUN with a Bind of the caller's.
//
// It does what wireguard-go's own main does in the foreground, of which it is a shorter form
// (MIT, copyright WireGuard LLC); a Bind is the one thing that cannot be given to that program.
package engine

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"
)

// Run serves the interface until SIGTERM, SIGINT, or until the interface or its UAPI socket is deleted.
func Run(name string, bind conn.Bind) error {
	link, err := tun.CreateTUN(name, device.DefaultMTU)
	if err != nil {
		return fmt.Errorf("cannot open the TUN: %w", err)
	}
	file, err := ipc.UAPIOpen(name)
	if err != nil {
		return fmt.Errorf("cannot open the UAPI socket: %w", err)
	}
	tunnel := device.NewDevice(link, bind, device.NewLogger(device.LogLevelError, "("+name+") "))
	defer tunnel.Close()
	listener, err := ipc.UAPIListen(name, file)
	if err != nil {
		return fmt.Errorf("cannot listen on the UAPI socket: %w", err)
	}
	defer listener.Close()

	gone := make(chan error)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				gone <- err
				return
			}
			go tunnel.IpcHandle(client)
		}
	}()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM, unix.SIGINT)
	select {
	case <-asked:
	case <-gone:
	case <-tunnel.Wait():
	}
	return nil
}
