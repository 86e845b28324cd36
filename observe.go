package guise

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/guise-project/guise/token"
)

// WatchKind says what a [WatchEvent] tells.
type WatchKind string

// The kinds of events. A watch begins with WatchBegun and as many WatchThere as that says; what changes follows.
const (
	WatchBegun    WatchKind = "begun"    // Server, Connections: how many are there
	WatchThere    WatchKind = "there"    // a connection that was there already
	WatchOpened   WatchKind = "opened"   // a client was let in
	WatchKnown    WatchKind = "known"    // it has said something: the quality of service in force, and its context
	WatchChanged  WatchKind = "changed"  // its context is another one; scopes that were entered for the same source have it too
	WatchFollowed WatchKind = "followed" // scopes in progress have another context, the connection has not: see Followed
	WatchEntered  WatchKind = "entered"  // a scope was entered
	WatchLeft     WatchKind = "left"     // a scope was left
	WatchFrozen   WatchKind = "frozen"   // its context is not followed any more
	WatchLost     WatchKind = "lost"     // its context is lost, and so the connection: see Lost
	WatchClosed   WatchKind = "closed"   // the server has closed the connection
	WatchMissed   WatchKind = "missed"   // Missed events are not told; as many WatchThere as Connections says follow, in the place of all before
	WatchEnded    WatchKind = "ended"    // the listener was closed; Connections: how many are open still
)

// WatchEvent is one thing that happened to a pipe's connections. It tells all about its connection, as that is then; never
// what goes over it.
//
// It is also one line of what a server sends to those who watch: JSON, in UTF-8, ended by a newline. They get it from a stream
// socket at the pipe's path with "~watch" at its end, and send nothing. The first line is of kind "begun" and its version 1. Kinds
// and members that a reader does not know are to be passed over; a server that changes the meaning of one says another version.
//
//	{"event":"begun","time":"…","version":1,"server":{"pipe":"spool","path":"/run/guise/pipe/spool","pid":812,"uid":0},"connections":1}
//	{"event":"there","time":"…","connection":{"id":7,"pid":4321,"program":"/usr/bin/spooler",
//	 "client":{"uid":1001,"gid":1001,"groups":[29],"level":"impersonation"},
//	 "level":"impersonation","tracking":"dynamic",
//	 "context":{"uid":1002,"gid":1002,"groups":[],"level":"impersonation"},"source":2,
//	 "via":[{"pid":99,"uid":1002,"gid":1002,"program":"/usr/bin/editor"},{"pid":4321,"uid":1001,"gid":1001,"program":"/usr/bin/spooler"}],
//	 "scopes":1}}
//	{"event":"missed","time":"…","missed":250,"connections":3}
//	{"event":"ended","time":"…","connections":2}
type WatchEvent struct {
	Kind        WatchKind          `json:"event"`
	Time        time.Time          `json:"time"`
	Version     int                `json:"version,omitempty"` // of the lines; with WatchBegun
	Server      *WatchedServer     `json:"server,omitempty"`
	Connections int                `json:"connections,omitempty"`
	Missed      uint64             `json:"missed,omitempty"`
	Connection  *WatchedConnection `json:"connection,omitempty"` // of all other kinds
	Followed    *WatchedFollowing  `json:"followed,omitempty"`
	Error       string             `json:"error,omitempty"` // with WatchEnded: why this one can't watch
}

// WatchedServer is a server that lets itself be watched.
type WatchedServer struct {
	Pipe    string `json:"pipe"`
	Path    string `json:"path"`
	PID     int    `json:"pid"`
	UID     uint32 `json:"uid"`
	Message bool   `json:"message,omitempty"` // a pipe of messages
}

// WatchedConnection is what there is to know of a connection.
type WatchedConnection struct {
	// ID is the connection's, of which the listener has no other.
	ID uint64 `json:"id"`
	// PID is the process that connected, and Program its executable where that could be seen.
	PID     int    `json:"pid"`
	Program string `json:"program,omitempty"`
	// Client is the context that the kernel froze when the client connected.
	Client WatchedContext `json:"client"`

	// The quality of service in force; unstated until the client has said something.
	Level         Level    `json:"level,omitempty"`
	Tracking      Tracking `json:"tracking,omitempty"`
	EffectiveOnly bool     `json:"effectiveOnly,omitempty"`

	// Context is the client's now. It is nil until the client has said something, at level anonymous, and once it is lost.
	Context *WatchedContext `json:"context,omitempty"`
	// Source is what the context is of: 0 for the client's process, another number for each scope of the client's.
	Source uint64 `json:"source,omitempty"`
	// Via is the chain: see [token.Token.Via]. It is empty if the client speaks for itself.
	Via []token.Hop `json:"via,omitempty"`
	// Scopes is how many are in progress.
	Scopes int `json:"scopes"`
	// Lost is why the context is lost.
	Lost string `json:"lost,omitempty"`
}

// WatchedFollowing tells of scopes in progress that follow a source which is not the connection's now.
type WatchedFollowing struct {
	Scopes  int             `json:"scopes"` // how many
	Context *WatchedContext `json:"context,omitempty"`
	Source  uint64          `json:"source,omitempty"`
	Via     []token.Hop     `json:"via,omitempty"`
}

// WatchedContext is a context as it is shown, which proves nothing: no token can be had of it.
type WatchedContext struct {
	UID          uint32   `json:"uid"`
	GID          uint32   `json:"gid"`
	Groups       []uint32 `json:"groups"`                 // the supplementary ones
	Capabilities string   `json:"capabilities,omitempty"` // the enabled ones, by name
	Level        Level    `json:"level"`
	Label        string   `json:"label,omitempty"`
	Origin       string   `json:"origin,omitempty"`    // who it is on which other machine, if it came over the network
	NeverWorn    string   `json:"neverWorn,omitempty"` // why, if it can't be worn
}

// watchVersion is that of the lines.
const watchVersion = 1

// watchSuffix is what a watch socket's path has at its end; '~' is in no pipe's name.
const watchSuffix = "~watch"

// ErrNotWatched: the pipe's server does not let itself be watched.
var ErrNotWatched = errors.New("the pipe's server does not let itself be watched")

// shownContext returns what is shown of a token, nil of none. It asks no account database: that is the reader's to do.
func shownContext(t *token.Token) *WatchedContext {
	if t == nil {
		return nil
	}
	c := &WatchedContext{UID: t.UID(), GID: t.GID(), Groups: t.AppendGroups([]uint32{}), Level: t.Level(), Label: t.Label()}
	if effective := t.Capabilities().Effective; effective != 0 {
		c.Capabilities = effective.String()
	}
	if origin, network := t.Origin(); network {
		c.Origin = origin.String()
	}
	if c.Level >= Impersonation { // or it is not worn anyway
		if err := t.Wearable(); err != nil {
			c.NeverWorn = err.Error()
		}
	}
	return c
}

// parseWatchEvent understands a line.
func parseWatchEvent(line []byte) (*WatchEvent, error) {
	e := new(WatchEvent)
	if err := json.Unmarshal(line, e); err != nil {
		return nil, err
	}
	return e, nil
}
