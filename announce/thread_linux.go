package announce

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/guise-project/guise/token"
)

// Thread is a thread of this process that is looked at from outside. Its methods must not be called at the same time, but for Close.
type Thread struct {
	status *os.File
	buf    []byte
}

// OpenThread opens what proc(5) shows of a thread.
func OpenThread(tid int32) (*Thread, error) {
	f, err := os.Open("/proc/self/task/" + strconv.Itoa(int(tid)) + "/status")
	if err != nil {
		return nil, err
	}
	return &Thread{f, make([]byte, 4096)}, nil
}

// Close closes it. A look that is under way fails, or not.
func (t *Thread) Close() { t.status.Close() }

// Look takes a look at the thread, into l's memory. It fails if the thread has ended.
func (t *Thread) Look(l *Look) error {
	b, err := t.read()
	if err != nil {
		return err
	}
	var c token.Capabilities
	err = errors.Join(
		parseEffective(&l.uid, b, "Uid"),
		parseEffective(&l.gid, b, "Gid"),
		l.parseGroups(b),
		parseSet(&c.Permitted, b, "CapPrm"),
		parseSet(&c.Effective, b, "CapEff"))
	if err != nil {
		return fmt.Errorf("%s: %w", t.status.Name(), err)
	}
	l.caps = token.AllCapabilities
	if l.uid == 0 {
		l.caps = c
	}
	return nil
}

// read reads the file at once: what it shows then is of one moment.
func (t *Thread) read() ([]byte, error) {
	for {
		n, err := t.status.ReadAt(t.buf, 0)
		switch {
		case n == len(t.buf):
			t.buf = make([]byte, 2*len(t.buf)) // many groups
		case err != io.EOF:
			return nil, err
		default:
			return t.buf[:n], nil
		}
	}
}

var errIncomplete = errors.New("a line is missing, or not as it should be")

// field returns what a line says.
func field(status []byte, name string) ([]byte, error) {
	for len(status) > 0 {
		line, rest, _ := bytes.Cut(status, []byte{'\n'})
		if len(line) > len(name) && line[len(name)] == ':' && string(line[:len(name)]) == name {
			return line[len(name)+1:], nil
		}
		status = rest
	}
	return nil, fmt.Errorf("%s: %w", name, errIncomplete)
}

// parseEffective parses the second of four ids: real, effective, saved, of the file system.
func parseEffective(id *uint32, status []byte, name string) error {
	value, err := field(status, name)
	if err != nil {
		return err
	}
	ids := 0
	for word := range bytes.FieldsSeq(value) {
		if ids++; ids == 2 {
			n, err := strconv.ParseUint(string(word), 10, 32)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			*id = uint32(n)
		}
	}
	if ids != 4 {
		return fmt.Errorf("%s: %w", name, errIncomplete)
	}
	return nil
}

func (l *Look) parseGroups(status []byte) error {
	value, err := field(status, "Groups")
	if err != nil {
		return err
	}
	l.groups = l.groups[:0]
	for word := range bytes.FieldsSeq(value) {
		n, err := strconv.ParseUint(string(word), 10, 32)
		if err != nil {
			return fmt.Errorf("line Groups: %w", err)
		}
		l.groups = append(l.groups, uint32(n))
	}
	return nil
}

func parseSet(set *token.CapSet, status []byte, name string) error {
	value, err := field(status, name)
	if err != nil {
		return err
	}
	bits, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	*set = token.CapSet(bits)
	return nil
}
