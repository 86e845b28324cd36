package guise_test

import (
	"testing"

	"github.com/guise-project/guise"
)

func TestClientEnvironReachesOnlyTheProgram(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		name string
		env  []string
		want string
	}{
		{"variables", []string{"A=1", "B=two words"}, "A=1\nB=two words\n"},
		{"none", nil, ""},
		// Were it in force for the second stage, the dynamic linker or the runtime would complain there too.
		{"one that has an effect", []string{"GODEBUG=gctrace=1"}, "GODEBUG=gctrace=1\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out []byte
			err := guise.RunAs(identity(t, 61001, 61001), func(s *guise.Scope) (err error) {
				cmd := s.Command("/usr/bin/env")
				cmd.Env = guise.ClientEnviron(test.env)
				out, err = cmd.CombinedOutput()
				return err
			})
			if err != nil || string(out) != test.want {
				t.Errorf("the program's environment is %q, %v, want %q", out, err, test.want)
			}
		})
	}
}
