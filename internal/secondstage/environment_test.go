package secondstage

import (
	"slices"
	"testing"
)

func TestEnvironmentOfTheProgram(t *testing.T) {
	for name, test := range map[string]struct{ set, want []string }{
		"plain":           {[]string{"A=1", "PATH=/bin"}, []string{"A=1", "PATH=/bin"}},
		"hidden":          {Wrap([]string{"LD_PRELOAD=x", "A=\xff"}), []string{"LD_PRELOAD=x", "A=\xff"}},
		"hidden, empty":   {Wrap(nil), nil},
		"hidden and more": {append([]string{"SERVER=1"}, Wrap([]string{"A=1"})...), []string{"A=1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := unwrap(test.set); !slices.Equal(got, test.want) {
				t.Errorf("%q is handed on as %q, want %q", test.set, got, test.want)
			}
		})
	}
	for _, variable := range Wrap([]string{"LD_PRELOAD=x", "GODEBUG=y"}) {
		if variable[:3] == "LD_" || variable[:2] == "GO" {
			t.Errorf("%q has an effect before the process is the client", variable)
		}
	}
}
