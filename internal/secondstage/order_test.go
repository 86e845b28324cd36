package secondstage

import (
	"reflect"
	"testing"

	"github.com/guise-project/guise/token"
)

func TestOrderSurvivesTheCommandLine(t *testing.T) {
	many := make([]uint32, 65536)
	for i := range many {
		many[i] = ^uint32(1) - uint32(i)
	}
	some := token.Capabilities{Permitted: token.AllCaps, Effective: 2}
	for name, o := range map[string]Order{
		"plain":                        {UID: 1, GID: 2, Groups: []uint32{3, 4}, Capabilities: some, Dir: "/", Name: "a", Args: []string{"a", "b"}},
		"nothing":                      {Name: "a", Args: []string{"a"}},
		"empty arguments":              {Name: "", Args: []string{"", "", ""}},
		"no UTF-8":                     {Dir: "/\xff", Name: "\xfe", Args: []string{"\x80", "GUISE [1 2]"}},
		"all groups that there can be": {UID: ^uint32(1), Groups: many, Name: "a", Args: []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := o.Arguments()
			for _, a := range args {
				if len(a) > 128<<10 {
					t.Errorf("an argument is %d bytes long; the kernel takes 131072", len(a))
				}
			}
			got, err := parse(args)
			if err != nil || !reflect.DeepEqual(got, o) {
				t.Errorf("got %+v, %v, want %+v", got, err, o)
			}
		})
	}
}

func TestOrderThatIsNone(t *testing.T) {
	for _, args := range [][]string{
		{}, {Argument0}, {Argument0, "1 2 3 4"}, {Argument0, "1 2 3 4", "", "", "a"}, {Argument0, "1 2 3", "", "", "a", "a"},
		{Argument0, "-1 2 3 4", "", "", "a", "a"}, {Argument0, "4294967296 2 3 4", "", "", "a", "a"}, {Argument0, "1 2 3 4", "x", "", "", "a", "a"},
	} {
		if o, err := parse(args); err == nil {
			t.Errorf("%q is read as %+v", args, o)
		}
	}
}
