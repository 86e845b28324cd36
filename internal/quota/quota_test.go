package quota

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFairLeavesRoomForOthers(t *testing.T) {
	for _, test := range []struct {
		name  string
		users []int // how many each gets who takes all it can, one after the other
		most  int
	}{
		{"one alone gets a fifth", []int{20}, 100},
		{"the next a fifth of the rest", []int{20, 16}, 100},
		{"many", []int{200, 160, 128, 103, 82, 66, 53, 42, 34, 27, 21, 17, 14, 11, 9, 7}, 1000},
		{"few places", []int{1, 1, 1, 1, 0}, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := NewFair(test.most)
			for i, want := range test.users {
				got := 0
				for f.Take(User(i+1), 1) {
					got++
				}
				if got != want {
					t.Errorf("user %d of %d got %d places, want %d", i, len(test.users), got, want)
				}
			}
			for i, n := range test.users {
				f.Give(User(i+1), n)
			}
			if f.all != 0 || len(f.held) != 0 {
				t.Errorf("%d places of %d users are taken after all were given back", f.all, len(f.held))
			}
		})
	}
}

func TestFairGivesOneToWhoeverHasNone(t *testing.T) {
	f := NewFair(1000)
	for round := range 1000 {
		for hostile := range 16 {
			f.Take(User(1000+hostile), 1)
		}
		if round%100 == 99 && !f.Take(User(round), 1) {
			t.Fatalf("after %d rounds of 16 users that take all they can, another gets nothing", round)
		}
	}
}

func TestFairGivesRootWhatIsFree(t *testing.T) {
	f := NewFair(10)
	for i := range 10 {
		if !f.Take(root, 1) {
			t.Fatalf("root gets %d of 10", i)
		}
	}
	if f.Take(root, 1) {
		t.Error("root got more than there is")
	}
}

func TestFairTakesAllOrNothing(t *testing.T) {
	f := NewFair(10)
	if f.Take(1, 11) || f.all != 0 {
		t.Errorf("a user took 11 of 10 at once, or %d are taken", f.all)
	}
}

func TestSharesAreBoundedInAllAndForEach(t *testing.T) {
	s := Shares[string]{Most: 3, Each: 2}
	for _, take := range []struct {
		key  string
		want bool
	}{{"a", true}, {"a", true}, {"a", false}, {"b", true}, {"c", false}} {
		if got := s.Take(take.key); got != take.want {
			t.Errorf("taking for %s: %v, want %v", take.key, got, take.want)
		}
	}
	s.Give("a")
	if !s.Take("c") {
		t.Error("nothing for c after one was given back")
	}
}

func TestSubordinateUIDsAreOneUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(path, []byte("alice:100000:65536\n# nothing\nbob:165536:65536\nbad:1\n1000:300000:10\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, old := subuidFile, subordinates.Load()
	subuidFile = path
	subordinates.Store(nil)
	t.Cleanup(func() { subuidFile = before; subordinates.Store(old) })
	for _, same := range [][2]uint32{{100000, 100001}, {100000, 165535}, {165536, 200000}, {300000, 300009}} {
		if Of(same[0]) != Of(same[1]) {
			t.Errorf("uids %d and %d are two users, and /etc/subuid gives both to one", same[0], same[1])
		}
	}
	for _, other := range [][2]uint32{{1000, 1001}, {165535, 165536}, {99999, 100000}, {300009, 300010}} {
		if Of(other[0]) == Of(other[1]) {
			t.Errorf("uids %d and %d are one user", other[0], other[1])
		}
	}
}
