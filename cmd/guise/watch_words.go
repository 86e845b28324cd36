package main

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// eventLine puts an event into words.
//
//	12:01:02.345 #7 changed: bob(1002) groups=bob(1002),audio(29), scope 2 of the client's, via 99 bob(1002) /usr/bin/editor > …
func eventLine(e *guise.WatchEvent) string {
	return printable(e.Time.Local().Format("15:04:05.000 ") + eventText(e))
}

func eventText(e *guise.WatchEvent) string {
	c := e.Connection
	if c == nil {
		return string(e.Kind) + ": " + pipeText(e)
	}
	text := fmt.Sprintf("#%d %s: ", c.ID, e.Kind)
	switch e.Kind {
	case guise.WatchOpened:
		return text + openerText(c)
	case guise.WatchThere:
		parts := []string{openerText(c)}
		if c.Level != guise.LevelUnstated {
			parts = append(parts, qosText(c), contextText(c))
		}
		return text + strings.Join(append(parts, scopesText(c.Scopes)), "; ")
	case guise.WatchKnown:
		return text + qosText(c) + "; " + contextText(c)
	case guise.WatchFrozen:
		return text + "it stays " + contextText(c)
	case guise.WatchFollowed:
		if f := e.Followed; f != nil {
			return text + scopesText(f.Scopes) + " followed: " + fullContext(f.Context, f.Source, f.Via)
		}
	case guise.WatchEntered:
		return text + scopesText(c.Scopes) + " as " + contextText(c)
	case guise.WatchLeft:
		return text + scopesText(c.Scopes)
	case guise.WatchLost:
		return text + c.Lost
	case guise.WatchClosed:
		return text + openerText(c)
	}
	return text + contextText(c)
}

// pipeText is for events of the pipe as a whole.
func pipeText(e *guise.WatchEvent) string {
	switch {
	case e.Kind == guise.WatchEnded:
		return endedText(e)
	case e.Kind == guise.WatchMissed:
		return fmt.Sprintf("%s, %s now", count(int(e.Missed), "event"), count(e.Connections, "connection"))
	case e.Server != nil:
		return serverText(e.Server) + ", " + count(e.Connections, "connection")
	}
	return ""
}

func serverText(s *guise.WatchedServer) string {
	return fmt.Sprintf("%s at %s, served by process %d of %s", s.Pipe, s.Path, s.PID, userText(s.UID))
}

func endedText(e *guise.WatchEvent) string {
	text := "the server has stopped listening"
	if e.Connections > 0 {
		text += fmt.Sprintf("; it goes on with %s", count(e.Connections, "connection"))
	}
	return text
}

func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

func scopesText(n int) string {
	if n == 0 {
		return "no scope in progress"
	}
	return count(n, "scope") + " in progress"
}

func openerText(c *guise.WatchedConnection) string {
	text := idsText(&c.Client) + ", process " + strconv.Itoa(c.PID)
	if c.Program != "" {
		text += " " + c.Program
	}
	return text
}

func qosText(c *guise.WatchedConnection) string {
	text := fmt.Sprintf("level %v, %v tracking", c.Level, c.Tracking)
	if c.EffectiveOnly {
		text += ", effective-only"
	}
	return text
}

// contextText says whom a connection's server acts as.
func contextText(c *guise.WatchedConnection) string {
	switch {
	case c.Lost != "":
		return "nobody: " + c.Lost
	case c.Context != nil:
		return fullContext(c.Context, c.Source, c.Via)
	case c.Level == guise.Anonymous:
		return "anonymous"
	}
	return "not known yet"
}

func fullContext(context *guise.WatchedContext, source uint64, via []token.Hop) string {
	if context == nil {
		return "nobody"
	}
	text := idsText(context)
	if source != 0 {
		text += fmt.Sprintf(", scope %d of the client's", source)
	}
	if len(via) > 0 {
		text += ", via " + chainText(via)
	}
	return text
}

func idsText(c *guise.WatchedContext) string {
	text := userText(c.UID) + " groups=" + groupsText(c)
	if c.Capabilities != "" {
		text += " capabilities=" + c.Capabilities
	}
	if c.Origin != "" {
		text += " from " + c.Origin
	}
	if c.NeverWorn != "" {
		text += " (" + c.NeverWorn + ")"
	}
	return text
}

// groupsText lists the groups, the primary one first.
func groupsText(c *guise.WatchedContext) string {
	groups := []string{groupText(c.GID)}
	for _, g := range c.Groups {
		if g != c.GID {
			groups = append(groups, groupText(g))
		}
	}
	return strings.Join(groups, ",")
}

func chainText(via []token.Hop) string {
	hops := make([]string, len(via))
	for i, h := range via {
		hops[i] = strconv.Itoa(h.PID) + " " + userText(h.UID)
		if h.Program != "" {
			hops[i] += " " + h.Program
		}
	}
	return strings.Join(hops, " > ")
}

// accounts has the names that were looked up: an account database may be far away.
var accounts sync.Map

func userText(uid uint32) string {
	return accountText("user", uid, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

func groupText(gid uint32) string {
	return accountText("group", gid, func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

func accountText(kind string, id uint32, lookUp func(string) (string, error)) string {
	if id == ^uint32(0) {
		return "?" // it could not be seen
	}
	key := kind + strconv.FormatUint(uint64(id), 10)
	if text, ok := accounts.Load(key); ok {
		return text.(string)
	}
	text := strconv.FormatUint(uint64(id), 10)
	if name, err := lookUp(text); err == nil && name != "" {
		text = name + "(" + text + ")"
	}
	accounts.Store(key, text)
	return text
}

// printable returns s with what a terminal would obey, or not show, made visible: programs' paths are their owners' choice.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// printableJSON is printable for a line of JSON, which stays one of the same meaning.
func printableJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch r1, r2 := utf16.EncodeRune(r); {
		case unicode.IsPrint(r) || r == '\n': // the line's end: others are escaped already
			b.WriteRune(r)
		case r1 != unicode.ReplacementChar:
			fmt.Fprintf(&b, `\u%04x\u%04x`, r1, r2)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
