package main

import "bytes"

// unfinishedLine is a line as far as it was written, up to longestLine.
type unfinishedLine struct {
	text []byte
	cut  int // bytes after it that are no more kept
}

func (l *unfinishedLine) length() int { return len(l.text) + l.cut }

// add adds what was written next, and calls finished for each line that ends in it. That is l itself, and changes after the call.
func (l *unfinishedLine) add(b []byte, finished func(*unfinishedLine)) {
	for {
		part, rest, ended := bytes.Cut(b, []byte{'\n'})
		kept := min(len(part), longestLine-len(l.text))
		l.text = append(l.text, part[:kept]...)
		l.cut += len(part) - kept
		if !ended {
			return
		}
		finished(l)
		l.text, l.cut = l.text[:0], 0
		b = rest
	}
}

// end calls finished for a line that nothing ended.
func (l *unfinishedLine) end(finished func(*unfinishedLine)) {
	if l.length() > 0 {
		finished(l)
		l.text, l.cut = l.text[:0], 0
	}
}
