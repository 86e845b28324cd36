package actor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/token"
)

// kinds are the errors that survive the way from another process.
var kinds = map[string]error{
	"EOF":             io.EOF,
	"permission":      fs.ErrPermission,
	"no data read":    guise.ErrNoDataRead,
	"level":           guise.ErrLevel,
	"privilege":       guise.ErrPrivilege,
	"not wearable":    guise.ErrNotWearable,
	"context lost":    guise.ErrContextLost,
	"wrong scope":     guise.ErrWrongScope,
	"more data":       guise.ErrMoreData,
	"no pipe":         guise.ErrNoPipe,
	"nobody listens":  guise.ErrNobodyListens,
	"broken pipe":     syscall.EPIPE,
	"connection lost": syscall.ECONNRESET,
	"deadline":        os.ErrDeadlineExceeded,
	"message length":  guise.ErrMessageTooLong,
}

// performance is what an actor has on its hands. It runs on one goroutine, locked to its thread.
type performance struct {
	orders
	change    func(IDs) (int64, error) // changes its own ids
	enable    func(token.CapSet) error // and effective capabilities
	listeners map[string]*guise.Listener
	conns     map[string]*guise.Conn
	depth     int          // of scopes
	scope     *guise.Scope // the innermost, nil if none
	saw       int64        // when the last watch saw what it watched for
}

func newPerformance(o orders, change func(IDs) (int64, error), enable func(token.CapSet) error) *performance {
	return &performance{orders: o, change: change, enable: enable, listeners: map[string]*guise.Listener{}, conns: map[string]*guise.Conn{}}
}

// play carries out orders until there are no more, or until the scope it was called in is to be left.
func (p *performance) play() {
	for {
		o, ok := p.next()
		if !ok {
			return
		}
		switch o.Act {
		case Leave:
			if p.depth == 0 {
				p.answer(answerError(errors.New("there is no scope to leave")))
				continue
			}
			return // enter answers
		case Enter:
			c, err := p.conn(o)
			if err != nil {
				p.answer(answerError(err))
				continue
			}
			p.enter(c.RunAsClient)
		case RunAs:
			t, err := token.FromIDs(o.IDs.UID, o.IDs.GID, o.IDs.Groups)
			if err != nil {
				p.answer(answerError(err))
				continue
			}
			p.enter(func(fn func(*guise.Scope) error) error { return guise.RunAs(t, fn) })
		case Watch:
			p.answer(Answer{})
			p.saw = watch(o.IDs.UID, o.Patience)
		default:
			a, err := p.do(o)
			if err != nil {
				failed := answerError(err)
				failed.Text = a.Text
				a = failed
			}
			p.answer(a)
		}
	}
}

func (p *performance) enter(run func(func(*guise.Scope) error) error) {
	entered := false
	err := run(func(s *guise.Scope) error {
		entered = true
		outer := p.scope
		p.depth, p.scope = p.depth+1, s
		defer func() { p.depth, p.scope = p.depth-1, outer }()
		p.answer(Answer{})
		p.play()
		return nil
	})
	if !entered && err == nil {
		err = errors.New("the scope's function was not called")
	}
	p.answer(answerError(err)) // to Enter if it failed, otherwise to Leave
}

func (p *performance) conn(o Order) (*guise.Conn, error) {
	c := p.conns[o.Conn]
	if c == nil {
		return nil, fmt.Errorf("this actor has no connection %q", o.Conn)
	}
	return c, nil
}

func (p *performance) do(o Order) (Answer, error) {
	switch o.Act {
	case Listen:
		config := &guise.ListenConfig{Tracking: o.Tracking, Message: o.Message}
		if o.Network != nil {
			config.Network = &guise.Network{Name: o.Network.Name, Path: o.Network.Path}
		}
		l, err := guise.Listen(o.Pipe, config)
		if err == nil {
			p.listeners[o.Pipe] = l
		}
		return Answer{}, err
	case Accept:
		l := p.listeners[o.Pipe]
		if l == nil {
			return Answer{}, fmt.Errorf("this actor does not listen on %q", o.Pipe)
		}
		c, err := accept(l, o.Patience)
		if err == nil {
			p.conns[o.Conn] = c
		}
		return Answer{}, err
	case Dial:
		c, err := dial(o)
		if err == nil {
			p.conns[o.Conn] = c
		}
		return Answer{}, err
	case Become:
		at, err := p.change(o.IDs)
		return Answer{At: at}, err
	case Enable:
		if p.depth > 0 {
			return Answer{}, enable(token.CapSet(o.Capabilities)) // what it wears is its thread's alone
		}
		return Answer{}, p.enable(token.CapSet(o.Capabilities))
	case Create:
		return create(o.Path)
	case Open:
		f, err := os.Open(o.Path)
		if err != nil {
			return Answer{}, err
		}
		return Answer{}, f.Close()
	case Who:
		return show()
	case Watched:
		return Answer{At: p.saw}, nil
	case Token:
		if p.scope == nil {
			return Answer{}, errors.New("this actor is in no scope, and has no token")
		}
		return answerToken(p.scope.Token()), nil
	}
	c, err := p.conn(o)
	if err != nil {
		return Answer{}, err
	}
	if o.Patience > 0 && (o.Act == Write || o.Act == Read) {
		if err := c.SetDeadline(time.Now().Add(o.Patience)); err != nil {
			return Answer{}, err
		}
		defer c.SetDeadline(time.Time{})
	}
	switch o.Act {
	case Write:
		_, err := c.Write([]byte(o.Text))
		return Answer{}, err
	case Read:
		size := o.Size
		if size == 0 {
			size = 4096
		}
		buf := make([]byte, size)
		n, err := c.Read(buf)
		return Answer{Text: string(buf[:n])}, err
	case Client:
		t, err := c.Client()
		if err != nil {
			return Answer{}, err
		}
		return answerToken(t), nil
	case State:
		return Answer{QoS: c.QoS()}, nil
	case Close:
		delete(p.conns, o.Conn)
		return Answer{}, c.Close()
	}
	return Answer{}, unknownAct(o)
}

// accept accepts a client. Where none comes within patience, if that is not 0, the listener is closed.
func accept(l *guise.Listener, patience time.Duration) (*guise.Conn, error) {
	if patience == 0 {
		return l.AcceptPipe()
	}
	late := time.AfterFunc(patience, func() { l.Close() })
	c, err := l.AcceptPipe()
	if !late.Stop() && err != nil {
		err = fmt.Errorf("nobody came within %v: %w: %w", patience, os.ErrDeadlineExceeded, err)
	}
	return c, err
}

// end closes what the actor still has.
func (p *performance) end() {
	for _, c := range p.conns {
		c.Close()
	}
	for _, l := range p.listeners {
		l.Close()
	}
}

func enable(effective token.CapSet) error {
	sets, e := capability.Get()
	if e == 0 {
		sets.Effective = effective & sets.Permitted
		e = sets.Set()
	}
	if e != 0 {
		return e
	}
	return nil
}

func create(path string) (Answer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return Answer{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Answer{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return Answer{Owner: IDs{UID: stat.Uid, GID: stat.Gid}}, nil
}

// show reads what proc(5) shows of this thread.
func show() (Answer, error) {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return Answer{}, err
	}
	var s Shown
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(value)
		switch name {
		case "Uid":
			s.UID = number(fields[1])
		case "Gid":
			s.GID = number(fields[1])
		case "Groups":
			for _, f := range fields {
				s.Groups = append(s.Groups, number(f))
			}
		case "CapEff":
			s.Effective, err = strconv.ParseUint(fields[0], 16, 64)
		}
	}
	return Answer{Shown: s}, err
}

func answerToken(t *token.Token) Answer {
	a := Answer{Context: idsOf(t), Via: t.Via()}
	a.Origin, a.Network = t.Origin()
	return a
}

func idsOf(t *token.Token) IDs { return IDs{UID: t.UID(), GID: t.GID(), Groups: t.Groups()} }

func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		panic("an id in /proc is no number: " + s)
	}
	return uint32(n)
}
