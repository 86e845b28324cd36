package machines_test

import (
	"strings"
	"testing"

	"github.com/guise-project/guise/internal/machines"
)

func TestAccountsThatCanNotBe(t *testing.T) {
	staff := []machines.Group{{Name: "staff", GID: 50}}
	for _, test := range []struct {
		says     string
		accounts []machines.Account
	}{
		{"named \"\"", []machines.Account{{UID: 5}}},
		{"named \"a:b\"", []machines.Account{{Name: "a:b", UID: 5}}},
		{"named \"-u\"", []machines.Account{{Name: "-u", UID: 5}}},
		{"two accounts named root", []machines.Account{{Name: "root", UID: 5}}},
		{"two accounts named a", []machines.Account{{Name: "a", UID: 5}, {Name: "a", UID: 6}}},
		{"b can't have uid 5", []machines.Account{{Name: "a", UID: 5}, {Name: "b", UID: 5}}},
		{"a can't have uid 0", []machines.Account{{Name: "a"}}},
		{"line break", []machines.Account{{Name: "a", UID: 5, Password: "x\ny"}}},
		{"staff has two gids", []machines.Account{{Name: "a", UID: 5, GID: 50, Groups: staff}, {Name: "b", UID: 6, Groups: []machines.Group{{Name: "staff", GID: 51}}}}},
		{"same gid 50", []machines.Account{{Name: "a", UID: 5, GID: 50, Groups: staff}, {Name: "b", UID: 6, Groups: []machines.Group{{Name: "others", GID: 50}}}}},
		{"a has two gids", []machines.Account{{Name: "a", UID: 5, GID: 15}, {Name: "b", UID: 6, GID: 16, Groups: []machines.Group{{Name: "a", GID: 7}}}}},
		{"group can't be named", []machines.Account{{Name: "a", UID: 5, GID: 5, Groups: []machines.Group{{Name: "b,c", GID: 7}}}}},
		{"same gid 5", []machines.Account{{Name: "a", UID: 6, GID: 6, Groups: []machines.Group{{Name: "mine", GID: 5}}}}},
		{"group root has two gids", []machines.Account{{Name: "a", UID: 6, GID: 6, Groups: []machines.Group{{Name: "root", GID: 9}}}}},
	} {
		if err := machines.CheckAccounts(test.accounts); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: %v; want an error that says %q", test.accounts, err, test.says)
		}
	}
	if err := machines.CheckAccounts(people); err != nil {
		t.Error(err)
	}
}

func TestFilesOfAccounts(t *testing.T) {
	if got := machines.PasswdFile(people); !strings.Contains(got, "\nalice:x:61001:61001::/home/alice:/bin/sh\nbob:x:61002:61100:") {
		t.Errorf("passwd is\n%s", got)
	}
	const want = "\nstaff:x:61100:alice\naudit:x:61101:alice\nalice:x:61001:\nlocal:x:61003:\n"
	if got, err := machines.GroupFile(people); err != nil || !strings.HasSuffix(got, want) {
		t.Errorf("group is\n%s, %v\nwant it to end with%s", got, err, want)
	}
}
