// Package actor has the people that the demonstration and the tests are played by: each is a process, or a goroutine on a
// thread of its own, with ids of its own, that does on pipes what it is told, one order after the other. What it answers is
// what the kernel showed it.
package actor

import (
	"errors"
	"fmt"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// IDs are what an actor is, or becomes.
type IDs struct {
	UID    uint32
	GID    uint32
	Groups []uint32
}

// Act is what an order asks for.
type Act string

// The acts.
const (
	Listen Act = "listen" // Pipe, Tracking, Message, Network: listens on a pipe
	Accept Act = "accept" // Pipe, Conn, Patience: accepts its next client
	Dial   Act = "dial"   // Pipe, Conn, QoS; of another machine also Message, Password, Encrypt, Patience: opens a pipe
	Write  Act = "write"  // Conn, Text, Patience: one write
	Read   Act = "read"   // Conn, Size, Patience: one read; answers Text
	Client Act = "client" // Conn: answers Context, Via and Origin, of the connection's client as it is now
	Enter  Act = "enter"  // Conn: enters a scope of the connection's client, until Leave
	RunAs  Act = "run as" // IDs: enters a scope of a token of those ids, until Leave
	Token  Act = "token"  // answers Context, Via and Origin, of the scope entered last as it is now
	Leave  Act = "leave"  // leaves the scope entered last
	Become Act = "become" // IDs: changes its own ids and groups; answers At, before the last step
	Enable Act = "enable" // Capabilities: makes these the effective ones of its thread
	Create Act = "create" // Path: makes a file; answers Owner
	Open   Act = "open"   // Path: opens a file for reading
	Who    Act = "who"    // answers Shown, of its thread
	State  Act = "state"  // Conn: answers QoS
	Close  Act = "close"  // Conn

	// Watch is answered at once. Then the actor sleeps until its thread is somebody else, and takes its next order after that.
	Watch   Act = "watch"   // IDs, Patience: until the thread has that uid, or patience is at an end
	Watched Act = "watched" // answers At, of when the last watch saw it; 0 if it did not
)

// Order is what an actor is told.
type Order struct {
	Act          Act
	Pipe         string `json:",omitempty"`
	Conn         string `json:",omitempty"`
	Text         string `json:",omitempty"`
	Path         string `json:",omitempty"`
	QoS          *guise.QoS
	Tracking     guise.Tracking
	Message      bool
	IDs          IDs
	Capabilities uint64
	Patience     time.Duration `json:",omitempty"`
	Network      *Network      `json:",omitempty"`
	Password     *Password     `json:",omitempty"`
	Encrypt      bool          `json:",omitempty"` // the client wants no connection that is not encrypted
	Size         int           `json:",omitempty"` // of the buffer; 0 is 4096
}

// Network is what a pipe is called on the network, and the path of its socket for smbd.
type Network struct{ Name, Path string }

// Password is for a logon without Kerberos.
type Password struct{ Account, Secret string }

// Answer is what came of an order.
type Answer struct {
	Error   string   `json:",omitempty"`
	Kinds   []string `json:",omitempty"` // of the error: see Is
	Text    string   `json:",omitempty"`
	Owner   IDs      // of a created file, as fstat(2) shows it
	Shown   Shown
	QoS     guise.QoS
	Context IDs         // as guise has it
	Via     []token.Hop `json:",omitempty"`
	Network bool        `json:",omitempty"` // the context came over the network, from Origin
	Origin  token.Origin
	At      int64 `json:",omitempty"` // nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share
}

// Shown is what /proc shows of a thread.
type Shown struct {
	IDs
	Effective uint64 // capabilities
}

// Err returns the answer's error. It matches the package's and the system's errors with errors.Is.
func (a Answer) Err() error {
	if a.Error == "" {
		return nil
	}
	return &reported{a.Error, a.Kinds}
}

// reported is an error that another process had.
type reported struct {
	text  string
	kinds []string
}

func (e *reported) Error() string { return e.text }

func (e *reported) Is(target error) bool {
	for _, k := range e.kinds {
		if kinds[k] == target {
			return true
		}
	}
	return false
}

func answerError(err error) Answer {
	if err == nil {
		return Answer{}
	}
	a := Answer{Error: err.Error()}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			a.Kinds = append(a.Kinds, name)
		}
	}
	return a
}

// Actor is somebody who does what it is told.
type Actor interface {
	// Do has the order carried out and returns what came of it. The error is the order's, or says that the actor
	// can't be reached.
	Do(Order) (Answer, error)
	// PID is the process that it is, or is part of.
	PID() int
	// Stop ends the actor and waits until it has gone, with its connections.
	Stop() error
}

// orders is where an actor's performance gets its orders from, and where its answers go.
type orders interface {
	next() (Order, bool)
	answer(Answer)
}

func unknownAct(o Order) error { return fmt.Errorf("an actor does not know how to %q", o.Act) }
