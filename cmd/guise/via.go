package main

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"github.com/guise-project/guise/token"
)

// accountName returns the name of a client's account, its uid if it has none.
func accountName(client *token.Token) string {
	uid := strconv.FormatUint(uint64(client.UID()), 10)
	if account, err := user.LookupId(uid); err == nil && account.Username != "" {
		return account.Username
	}
	return uid
}

// longestProgram is how long a path may be that is told, in bytes: a command's environment has an end.
const longestProgram = 512

// viaText tells a way as PROGRAM(PID),PROGRAM(PID). The programs' paths are of others' choice, and can't look like more than
// one in it, nor like anything to a shell or a terminal.
func viaText(via []token.Hop) string {
	hops := make([]string, len(via))
	for i, hop := range via {
		program := "?"
		if hop.Program != "" && len(hop.Program) <= longestProgram {
			program = escape(hop.Program)
		}
		hops[i] = program + "(" + strconv.Itoa(hop.PID) + ")"
	}
	return strings.Join(hops, ",")
}

// escape writes all bytes of s as %XX that are not a letter, a digit or one of /._+-.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("/._+-", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
