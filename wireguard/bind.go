package main

import "golang.zx2c4.com/wireguard/conn"

// Bind is a Bind whose datagrams carry the reserved bytes: bytes 1 to 3 of each WireGuard message.
//
// They are written when the message is complete, since its MACs are made over zeros, and before
// datagrams are coalesced for UDP_SEGMENT. What comes in has them cleared: wireguard-go drops
// messages in which they are not zero.
type Bind struct {
	conn.Bind
	reserved [3]byte
}

// Send writes the bytes and sends.
func (bind *Bind) Send(datagrams [][]byte, to conn.Endpoint) error {
	for _, datagram := range datagrams {
		stamp(datagram, bind.reserved)
	}
	err := bind.Bind.Send(datagrams, to)
	if err == nil {
		return nil
	}
	// The address that was sent from may be gone. wireguard-go forgets it when routes change, but
	// only if the Bind is exactly its own.
	fresh, wrong := bind.ParseEndpoint(to.DstToString())
	if wrong != nil {
		return err
	}
	// One by one: a batch is refused as a whole once the path is known to carry less than its datagrams,
	// which the kernel cuts when they come alone.
	for _, datagram := range datagrams {
		if err := bind.Bind.Send([][]byte{datagram}, fresh); err != nil {
			return err
		}
	}
	return nil
}

// Open opens the sockets; what the receivers return has zeros for the bytes.
func (bind *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	receivers, port, err := bind.Bind.Open(port)
	for i, receive := range receivers {
		receivers[i] = func(datagrams [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
			count, err := receive(datagrams, sizes, from)
			for j := range count {
				stamp(datagrams[j][:sizes[j]], [3]byte{})
			}
			return count, err
		}
	}
	return receivers, port, err
}

func stamp(datagram []byte, reserved [3]byte) {
	if len(datagram) > len(reserved) {
		copy(datagram[1:], reserved[:])
	}
}
