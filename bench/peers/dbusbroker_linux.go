package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// dbusBrokerSocket is where the broker's clients connect, in the stage's directory.
const dbusBrokerSocket = "dbus-broker"

// What the broker takes as a policy: see AddListener in dbus-broker(1), and src/bus/policy.c of release 33, which says what is in it. Of
// what it has on one message the rule with the highest priority counts; without a rule that is a no.
type (
	brokerPolicy struct {
		Users      []brokerUser
		Ranges     []brokerRange
		SELinux    []brokerLabel
		AppArmor   bool
		AppArmorIs string
	}
	// brokerUser is what holds for a user. If there is nothing for somebody, what there is for anybody does.
	brokerUser struct {
		UID   uint32
		Rules brokerRules
	}
	brokerRange struct {
		Group       bool
		First, Last uint32
		Rules       brokerRules
	}
	brokerLabel struct{ Name, Label string }
	brokerRules struct {
		Connect         bool
		ConnectPriority uint64
		Own             []brokerOwn
		Send, Receive   []brokerMessage
	}
	brokerOwn struct {
		Allow    bool
		Priority uint64
		IsPrefix bool
		Name     string
	}
	// brokerMessage is about messages that are as its fields say. Empty ones say nothing.
	brokerMessage struct {
		Allow                         bool
		Priority                      uint64
		Name, Path, Interface, Member string
		Type, Broadcast               uint32
		LeastFDs, MostFDs             uint64
	}
)

// brokerAnybody is the user whose rules are those of all that have none.
const brokerAnybody = math.MaxUint32

// dbusBrokerPolicy is [dbusDaemonConfig]'s.
func dbusBrokerPolicy() brokerPolicy {
	everything := []brokerMessage{{Allow: true, Priority: 1, MostFDs: math.MaxUint64}}
	everybody := brokerRules{Connect: true, ConnectPriority: 1, Send: everything, Receive: everything}
	root := everybody
	root.Own = []brokerOwn{{Allow: true, Priority: 1, Name: busName}}
	return brokerPolicy{Users: []brokerUser{{brokerAnybody, everybody}, {0, root}}}
}

// startDBusBroker starts dbus-broker and is what it takes besides: its controller, which hands it the socket and the policy. That is
// dbus-broker-launch otherwise, which takes systemd.
func startDBusBroker(s *stage) (end func(), err error) {
	var ends endings
	defer func() {
		if err != nil {
			ends.run()
		}
	}()
	ours, its, err := brokerSockets()
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { ours.Close() })
	id := make([]byte, 16) // the machine's own is nobody's business here, and what it is changes nothing
	rand.Read(id)
	kill, err := startBus("dbus-broker", []string{"--controller=3", "--machine-id=" + hex.EncodeToString(id)}, its)
	its.Close()
	if err != nil {
		return nil, err
	}
	ends = append(ends, kill)
	if err := ours.SetDeadline(time.Now().Add(busStart)); err != nil {
		return nil, err
	}
	controller, err := dbus.DialUnix(ours)
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { controller.Close() })
	// It authenticates its controller as it does clients, but is no bus to that: there is no Hello.
	if err := controller.Auth(nil); err != nil {
		return nil, fmt.Errorf("authenticating to dbus-broker as its controller: %w", err)
	}
	socket := filepath.Join(s.dir, dbusBrokerSocket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the broker listens on
	defer l.Close()
	ends = append(ends, func() { os.Remove(socket) })
	if err := os.Chmod(socket, 0o666); err != nil {
		return nil, err
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var callErr error
	controlErr := raw.Control(func(fd uintptr) {
		callErr = controller.Object("org.bus1.DBus.Broker", "/org/bus1/DBus/Broker").Call("org.bus1.DBus.Broker.AddListener", 0,
			dbus.ObjectPath("/org/bus1/DBus/Listener/0"), dbus.UnixFD(fd), dbus.MakeVariant(dbusBrokerPolicy())).Err
	})
	if err := errors.Join(controlErr, callErr); err != nil {
		return nil, fmt.Errorf("handing %s to dbus-broker: %w", socket, err)
	}
	if err := ours.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return ends.run, nil
}

// brokerSockets returns the two ends of what a controller and the broker talk over.
func brokerSockets() (ours *net.UnixConn, its *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	its = os.NewFile(uintptr(fds[1]), "the broker's end")
	end := os.NewFile(uintptr(fds[0]), "the controller's end")
	defer end.Close()
	c, err := net.FileConn(end)
	if err != nil {
		its.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), its, nil
}
