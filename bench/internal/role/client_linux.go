package role

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/guise-project/guise"
)

// IDs are whose process a client is.
type IDs struct {
	UID, GID uint32
	Groups   []uint32
}

// attr starts a process under the ids.
func (i IDs) attr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: i.UID, Gid: i.GID, Groups: i.Groups}}
}

// Client is the role of a process that dials a pipe, says something and stays.
func Client(args []string) error {
	if len(args) != 2 {
		return errors.New("a client takes a tracking and a pipe")
	}
	qos := guise.QoS{Tracking: guise.Static}
	if args[0] == guise.Dynamic.String() {
		qos.Tracking = guise.Dynamic
	}
	c, err := guise.Dial(args[1], &qos)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte{0}); err != nil {
		return err
	}
	AwaitEnd()
	return nil
}

// Connect starts a [Client] under the ids and returns the server's end of its connection, with the first byte read.
func Connect(l *guise.Listener, ids IDs, tracking guise.Tracking) (*guise.Conn, *Process, error) {
	p, err := Start(ids.attr(), nil, "client", tracking.String(), l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	c, err := l.AcceptPipe()
	if err == nil {
		if _, err = c.Read(make([]byte, 1)); err == nil {
			if t, clientErr := c.Client(); clientErr != nil {
				err = clientErr
			} else if t.UID() != ids.UID || c.QoS().Tracking != tracking {
				err = fmt.Errorf("wanted uid %d with %v tracking, got %s with %v", ids.UID, tracking, t, c.QoS().Tracking)
			}
		}
	}
	if err != nil {
		p.Stop()
		return nil, nil, fmt.Errorf("connecting a client: %w", err)
	}
	return c, p, nil
}
