package main

import (
	"strings"
	"testing"
)

func TestShellIn(t *testing.T) {
	const passwd = `root:x:0:0:root:/root:/bin/bash
broken
alice:x:1001:1001:,,,:/home/alice:
bob:x:1002:1002:,,,:/home/bob:/usr/sbin/nologin
`
	for account, want := range map[string]string{"root": "/bin/bash", "alice": "/bin/sh", "bob": "/usr/sbin/nologin", "broken": "", "carol": ""} {
		if got := shellIn(strings.NewReader(passwd), account); got != want {
			t.Errorf("the shell of %s is %q, want %q", account, got, want)
		}
	}
}
