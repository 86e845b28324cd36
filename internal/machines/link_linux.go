package machines

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// connect plugs every machine into the switch.
func (n *Network) connect(ctx context.Context) error {
	var b strings.Builder
	for _, m := range n.Machines {
		fmt.Fprintf(&b, "link add name %s type veth peer name eth0 netns %d\n", m.Name, m.holder.pid)
		fmt.Fprintf(&b, "link set %s master bridge0 up\n", m.Name)
	}
	return n.cables.ip(ctx, b.String())
}

// connect gives the machine's end of the cable its address.
func (m *Machine) connect(ctx context.Context) error {
	return m.holder.ip(ctx, fmt.Sprintf("addr add %s/24 dev eth0\nlink set eth0 up\n", m.Address))
}

// SetLink cuts the machine's cable, or mends it: the machine's interface is as it was, has its address and routes, but nothing arrives.
// What others send is not refused but lost, until they notice.
func (m *Machine) SetLink(up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return m.network.cables.ip(context.Background(), fmt.Sprintf("link set %s %s\n", m.Name, state))
}

// ip has ip(8) run a script in the holder's network namespace.
func (h *holder) ip(ctx context.Context, script string) error {
	cmd := outside("nsenter", fmt.Sprintf("--target=%d", h.pid), "--net", "--", "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip in the network namespace of %s (of process %d): %w: %s; asked for\n%s", h.what, h.pid, err, strings.TrimSpace(string(out)), script)
	}
	return ctx.Err()
}

// Dial connects from the machine to an address: an IP address and a port, since names are for programs in the machine. The machine's
// network stays until the connection is closed.
func (m *Machine) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	onThread(func() { c, err = m.dialHere(ctx, network, address) })
	return c, err
}

// onThread runs f on a thread that ends with it, so that f may change what the thread is in. It is never the process's first
// thread: that one does not end, and what it is in is what the process is said to be in.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// dialHere connects by a socket of the machine's, since a socket belongs to the network that its thread is in when it is made.
func (m *Machine) dialHere(ctx context.Context, network, address string) (net.Conn, error) {
	path := fmt.Sprintf("/proc/%d/ns/net", m.holder.pid)
	ns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("machine %s has no network: %w", m.Name, err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("entering the network of %s by %s: %w", m.Name, path, err)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}
