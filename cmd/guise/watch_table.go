package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/guise-project/guise"
)

// watchTable is what guise watch shows on a terminal.
type watchTable struct {
	server      *guise.WatchedServer
	connections map[uint64]*watchedRow
	events      []string // the latest, at its end
	happened    uint64
	missed      uint64
}

type watchedRow struct {
	connection *guise.WatchedConnection
	latest     uint64 // event
}

// mostEvents is how many events are shown below the connections.
const mostEvents = 8

// take takes in an event.
func (t *watchTable) take(e *guise.WatchEvent) {
	t.happened++
	switch e.Kind {
	case guise.WatchBegun, guise.WatchMissed:
		if e.Server != nil {
			t.server = e.Server
		}
		t.missed += e.Missed
		t.connections = make(map[uint64]*watchedRow)
	case guise.WatchEnded:
	default:
		switch c := e.Connection; {
		case c == nil: // of a kind that this program does not know
		case e.Kind == guise.WatchClosed:
			delete(t.connections, c.ID)
		default:
			t.connections[c.ID] = &watchedRow{c, t.happened}
		}
	}
	if e.Kind != guise.WatchThere {
		t.events = append(t.events, eventLine(e))
		if more := len(t.events) - mostEvents; more > 0 {
			t.events = slices.Delete(t.events, 0, more)
		}
	}
}

var watchColumns = []string{"ID", "PID", "CLIENT", "LEVEL", "TRACKING", "SCOPES", "ACTS AS", "GROUPS", "OF", "CHAIN"}

// mostColumn is the width of a column but the last.
const mostColumn = 28

// lines returns what is shown on a terminal of a size.
func (t *watchTable) lines(width, height int) []string {
	lines := []string{t.title(), t.summary(), ""}
	events := t.events
	room := height - len(lines) - 1 // for connections; the column heads take one
	if most := min(mostEvents, height/3); len(events) > most {
		events = events[len(events)-most:]
	}
	if len(events) > 0 && room > len(events)+3 {
		room -= len(events) + 1
	} else {
		events = nil
	}
	lines = append(lines, t.rows(room)...)
	if len(events) > 0 {
		lines = append(append(lines, ""), events...)
	}
	if len(lines) > height {
		lines = lines[:max(height, 0)]
	}
	for i := range lines {
		lines[i] = cut(printable(lines[i]), width)
	}
	return lines
}

func (t *watchTable) title() string {
	if t.server == nil {
		return "guise watch"
	}
	return "guise watch: " + serverText(t.server)
}

func (t *watchTable) summary() string {
	scopes := 0
	for _, row := range t.connections {
		scopes += row.connection.Scopes
	}
	text := count(len(t.connections), "connection") + ", " + scopesText(scopes)
	if t.missed > 0 {
		text += ", " + count(int(t.missed), "event") + " missed"
	}
	return text
}

// rows returns the table with at most so many connections: those on which something happened last.
func (t *watchTable) rows(room int) []string {
	shown := slices.SortedFunc(maps.Values(t.connections), func(a, b *watchedRow) int { return cmp.Compare(b.latest, a.latest) })
	more := 0
	if len(shown) > room {
		room = max(room-1, 0)
		more = len(shown) - room
		shown = shown[:room]
	}
	slices.SortFunc(shown, func(a, b *watchedRow) int { return cmp.Compare(a.connection.ID, b.connection.ID) })
	cells := [][]string{watchColumns}
	for _, row := range shown {
		cells = append(cells, cellsOf(row.connection))
	}
	lines := align(cells)
	if more > 0 {
		lines = append(lines, fmt.Sprintf("… and %d more", more))
	}
	return lines
}

func cellsOf(c *guise.WatchedConnection) []string {
	level, tracking := "-", "-"
	if c.Level != guise.LevelUnstated {
		level, tracking = c.Level.String(), c.Tracking.String()
	}
	actsAs, groups, of, chain := "-", "-", "-", c.Program
	switch {
	case c.Lost != "":
		actsAs, chain = "nobody", "lost: "+c.Lost
	case c.Context != nil:
		actsAs, groups, of = userText(c.Context.UID), groupsText(c.Context), "process"
		if c.Source != 0 {
			of = "scope " + strconv.FormatUint(c.Source, 10)
		}
		if len(c.Via) > 0 {
			chain = chainText(c.Via)
		}
	case c.Level == guise.Anonymous:
		actsAs = "anonymous"
	}
	return []string{
		strconv.FormatUint(c.ID, 10), strconv.Itoa(c.PID), userText(c.Client.UID), level, tracking,
		strconv.Itoa(c.Scopes), actsAs, groups, of, chain,
	}
}

// align makes lines of rows of cells.
func align(rows [][]string) []string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
			widths[i] = max(widths[i], min(mostColumn, utf8.RuneCountInString(row[i])))
		}
	}
	lines := make([]string, len(rows))
	for i, row := range rows {
		var b strings.Builder
		for j, cell := range row {
			if j == len(row)-1 {
				b.WriteString(cell)
				break
			}
			cell = cut(cell, widths[j])
			b.WriteString(cell + strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell)+2))
		}
		lines[i] = b.String()
	}
	return lines
}

// cut returns what of s fits into width, with a sign that there is more.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	if width <= 0 {
		return ""
	}
	return string([]rune(s)[:width-1]) + "…"
}
