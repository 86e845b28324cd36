package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

// The server's name on the bus, its object and the object's method.
const (
	busName   = "guise.bench.Files"
	busObject = dbus.ObjectPath("/guise/bench/Files")
	busMethod = busName + ".Get"
)

// overDBus is D-Bus, with the bus that listens on socket of the directory. The server does not act as its client: it asks the bus who
// called, each time as services do, and reads the file as itself.
func overDBus(socket string) protocol {
	connect := func(dir string) (*dbus.Conn, error) {
		address := busAddress(filepath.Join(dir, socket))
		c, err := dbus.Connect(address)
		if err != nil {
			return nil, fmt.Errorf("connecting to the bus at %s: %w", address, err)
		}
		return c, nil
	}
	return protocol{
		serve: func(dir string, ready func(), until func()) error {
			c, err := connect(dir)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Export(busFiles{c.BusObject()}, busObject, busName); err != nil {
				return fmt.Errorf("exporting %s: %w", busObject, err)
			}
			reply, err := c.RequestName(busName, dbus.NameFlagDoNotQueue)
			if err != nil {
				return fmt.Errorf("asking the bus for the name %s: %w", busName, err)
			}
			if reply != dbus.RequestNameReplyPrimaryOwner {
				return fmt.Errorf("asking the bus for the name %s: its answer was %d", busName, reply)
			}
			ready()
			until()
			return nil
		},
		dial: func(dir string) (connection, error) {
			c, err := connect(dir)
			if err != nil {
				return nil, err
			}
			return busConnection{c, c.Object(busName, busObject)}, nil
		},
	}
}

func busAddress(socket string) string { return "unix:path=" + dbus.EscapeBusAddressValue(socket) }

// busFiles is the server's object.
type busFiles struct{ bus dbus.BusObject }

func (f busFiles) Get(sender dbus.Sender, name string) ([]byte, *dbus.Error) {
	var who map[string]dbus.Variant
	if err := f.bus.Call("org.freedesktop.DBus.GetConnectionCredentials", 0, string(sender)).Store(&who); err != nil {
		return nil, dbus.MakeFailedError(fmt.Errorf("asking the bus who %s is: %w", sender, err))
	}
	if uid, ok := who["UnixUserID"].Value().(uint32); !ok || uid != alice.UID {
		return nil, dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{fmt.Sprintf("somebody else called: %v", who)})
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, dbus.MakeFailedError(err)
	}
	return b, nil
}

type busConnection struct {
	*dbus.Conn
	files dbus.BusObject
}

func (c busConnection) ask(name string, answer []byte) error {
	var got []byte
	if err := c.files.Call(busMethod, 0, name).Store(&got); err != nil {
		return fmt.Errorf("calling %s: %w", busMethod, err)
	}
	if len(got) != len(answer) {
		return fmt.Errorf("calling %s: the answer has %d bytes, not %d", busMethod, len(got), len(answer))
	}
	copy(answer, got)
	return nil
}

func (c busConnection) close() error { return c.Close() }

// asBus is whom a bus runs as: as elsewhere an account of its own, so that what it is sent can do no harm but to it.
var asBus = &syscall.Credential{Uid: 61030, Gid: 61030}

// busAccount is that account's line in /etc/passwd: dbus-daemon takes no names of users from its configuration unless it finds itself.
var busAccount = fmt.Sprintf("guise-bus:x:%d:%d::/:/usr/sbin/nologin\n", asBus.Uid, asBus.Gid)

// busStart is how long a bus has to get going. Without a limit one that hangs would hang the stage.
const busStart = 10 * time.Second

// startBus starts a bus's program, with files from descriptor 3 on and without this process's environment, which may name another bus.
// It ends when end is called, and when this process does, whatever ends that.
func startBus(program string, args []string, files ...*os.File) (end func(), err error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: asBus, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		// The kernel sends Pdeathsig when the thread that started the process ends, so that thread has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	return func() {
		cmd.Process.Kill()
		<-ended
	}, nil
}
