package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

var client = [3]byte{0xc1, 0x1d, 0x07}

func TestReservedAreThreeNumbersOrNothing(t *testing.T) {
	for text, want := range map[string][3]byte{"": {}, "0,0,0": {}, "193,29,7": client, "255,0,1": {255, 0, 1}} {
		if got, err := parse(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"1,2", "1,2,3,4", "1,2,256", "-1,2,3", "1, 2,3", "a,b,c", ",,", "AQID"} {
		if _, err := parse(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// socket is a Bind without a network: it keeps what is sent and hands out what is to be received.
type socket struct {
	conn.Bind
	sent     [][]byte
	sources  []string
	failures []error
	incoming [][]byte
}

func (socket *socket) Send(datagrams [][]byte, to conn.Endpoint) error {
	socket.sources = append(socket.sources, fmt.Sprintf("%p", to))
	if len(socket.failures) > 0 {
		failure := socket.failures[0]
		socket.failures = socket.failures[1:]
		return failure
	}
	for _, datagram := range datagrams {
		socket.sent = append(socket.sent, slices.Clone(datagram))
	}
	return nil
}

func (socket *socket) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	receive := func(datagrams [][]byte, sizes []int, _ []conn.Endpoint) (int, error) {
		for i, one := range socket.incoming {
			sizes[i] = copy(datagrams[i], one)
		}
		return len(socket.incoming), nil
	}
	return []conn.ReceiveFunc{receive}, port, nil
}

func TestEachDatagramSentCarriesTheBytesAndNothingElseChanges(t *testing.T) {
	inner := &socket{}
	bind := &Bind{Bind: inner, reserved: client}
	datagrams := [][]byte{{1, 0, 0, 0, 9, 8}, {4, 0, 0, 0}, {4, 0, 0}, {}}
	if err := bind.Send(datagrams, &conn.StdNetEndpoint{}); err != nil {
		t.Fatal(err)
	}
	want := [][]byte{{1, 0xc1, 0x1d, 7, 9, 8}, {4, 0xc1, 0x1d, 7}, {4, 0, 0}, {}}
	if !slices.EqualFunc(inner.sent, want, bytes.Equal) {
		t.Errorf("sent %v", inner.sent)
	}
}

func TestEachDatagramReceivedHasThemCleared(t *testing.T) {
	inner := &socket{incoming: [][]byte{{2, 0xc1, 0x1d, 7, 9}, {}, {4, 5, 6, 7}, {4, 1, 2}}}
	receivers, _, err := (&Bind{Bind: inner}).Open(0)
	if err != nil {
		t.Fatal(err)
	}
	datagrams, sizes := make([][]byte, 4), make([]int, 4)
	for i := range datagrams {
		datagrams[i] = make([]byte, 8)
	}
	if count, err := receivers[0](datagrams, sizes, make([]conn.Endpoint, 4)); count != 4 || err != nil {
		t.Fatal(count, err)
	}
	for i, want := range [][]byte{{2, 0, 0, 0, 9}, {}, {4, 0, 0, 0}, {4, 1, 2}} {
		if got := datagrams[i][:sizes[i]]; !bytes.Equal(got, want) {
			t.Errorf("datagram %d: %v", i, got)
		}
	}
}

func TestABatchThatIsRefusedGoesOneByOne(t *testing.T) {
	inner := &socket{Bind: conn.NewStdNetBind(), failures: []error{errors.New("invalid argument")}}
	to := &conn.StdNetEndpoint{AddrPort: netip.MustParseAddrPort("192.0.2.1:2408")}
	if err := (&Bind{Bind: inner}).Send([][]byte{{4, 0, 0, 0, 1}, {4, 0, 0, 0, 2}}, to); err != nil {
		t.Fatal(err)
	}
	if len(inner.sources) != 3 || len(inner.sent) != 2 {
		t.Errorf("%d calls, sent %v", len(inner.sources), inner.sent)
	}
}

func TestAFailureIsTriedOnceMoreWithoutTheOldSource(t *testing.T) {
	gone := errors.New("the address is gone")
	for _, failures := range [][]error{{gone}, {gone, gone}} {
		inner := &socket{Bind: conn.NewStdNetBind(), failures: failures}
		to := &conn.StdNetEndpoint{AddrPort: netip.MustParseAddrPort("192.0.2.1:2408")}
		err := (&Bind{Bind: inner}).Send([][]byte{{4, 0, 0, 0}}, to)
		if (err != nil) != (len(failures) == 2) || len(inner.sources) != 2 || inner.sources[0] == inner.sources[1] {
			t.Errorf("%d failures: %v after %v", len(failures), err, inner.sources)
		}
	}
}

// witness sees datagrams as they come from the network; only those with `bytes` pass.
type witness struct {
	conn.Bind
	bytes [3]byte
	mutex sync.Mutex
	seen  map[[3]byte]int
}

func (witness *witness) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	receivers, port, err := witness.Bind.Open(port)
	for i, receive := range receivers {
		receivers[i] = func(datagrams [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
			count, err := receive(datagrams, sizes, from)
			witness.mutex.Lock()
			defer witness.mutex.Unlock()
			for j := range count {
				if got := [3]byte(datagrams[j][1:4]); got != witness.bytes {
					sizes[j] = 0
					witness.seen[got]++
				} else {
					witness.seen[got]++
				}
			}
			return count, err
		}
	}
	return receivers, port, err
}

// pair connects two devices over loopback; near sends `bytes`, and far, like an edge, takes only the client's.
func pair(t *testing.T, near [3]byte) (tunnels [2]*tuntest.ChannelTUN, far *witness) {
	far = &witness{Bind: conn.NewStdNetBind(), bytes: client, seen: map[[3]byte]int{}}
	binds := [2]conn.Bind{
		&Bind{Bind: conn.NewStdNetBind(), reserved: near},
		&Bind{Bind: far, reserved: client},
	}
	var devices [2]*device.Device
	for i := range devices {
		tunnels[i] = tuntest.NewChannelTUN()
		devices[i] = device.NewDevice(tunnels[i].TUN(), binds[i], device.NewLogger(device.LogLevelError, ""))
		t.Cleanup(devices[i].Close)
		if err := devices[i].IpcSet(fmt.Sprintf("private_key=%x\nlisten_port=0\n", key(i))); err != nil {
			t.Fatal(err)
		}
		if err := devices[i].Up(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range devices {
		other := 1 - i
		public, err := curve25519.X25519(key(other), curve25519.Basepoint)
		if err != nil {
			t.Fatal(err)
		}
		peer := fmt.Sprintf("public_key=%s\nallowed_ip=10.0.0.%d/32\n", hex.EncodeToString(public), other+1)
		if i == 0 {
			peer += "endpoint=127.0.0.1:" + port(t, devices[other]) + "\n"
		}
		if err := devices[i].IpcSet(peer); err != nil {
			t.Fatal(err)
		}
	}
	return tunnels, far
}

func key(number int) []byte { return bytes.Repeat([]byte{byte(0x40 + number)}, 32) }

func port(t *testing.T, tunnel *device.Device) string {
	said, err := tunnel.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines([]byte(said)) {
		if found, ok := bytes.CutPrefix(line, []byte("listen_port=")); ok {
			return string(bytes.TrimSpace(found))
		}
	}
	t.Fatal("no port")
	return ""
}

// passes sends packets from one end until one arrives at the other.
func passes(from, to *tuntest.ChannelTUN, packet []byte, limit time.Duration) bool {
	deadline := time.After(limit)
	for {
		select {
		case got := <-to.Inbound:
			return bytes.Equal(got, packet)
		case from.Outbound <- packet:
		case <-deadline:
			return false
		}
		select {
		case got := <-to.Inbound:
			return bytes.Equal(got, packet)
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			return false
		}
	}
}

func TestADeviceThatWantsTheBytesIsReachedWithThemBothWays(t *testing.T) {
	tunnels, far := pair(t, client)
	there := tuntest.Ping(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"))
	back := tuntest.Ping(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"))
	if !passes(tunnels[0], tunnels[1], there, 5*time.Second) {
		t.Fatal("nothing arrives")
	}
	if !passes(tunnels[1], tunnels[0], back, 5*time.Second) {
		t.Fatal("nothing comes back")
	}
	far.mutex.Lock()
	defer far.mutex.Unlock()
	if len(far.seen) != 1 || far.seen[client] < 2 {
		t.Errorf("seen on the wire: %v", far.seen)
	}
}

func TestWithoutTheBytesItIsNot(t *testing.T) {
	tunnels, far := pair(t, [3]byte{})
	there := tuntest.Ping(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"))
	if passes(tunnels[0], tunnels[1], there, 500*time.Millisecond) {
		t.Fatal("it arrives")
	}
	far.mutex.Lock()
	defer far.mutex.Unlock()
	if len(far.seen) != 1 || far.seen[[3]byte{}] == 0 {
		t.Errorf("seen on the wire: %v", far.seen)
	}
}
