package quota

import "testing"

func TestRateIsOfEachUser(t *testing.T) {
	r := Rate{AtOnce: 3} // and none a second: the clock plays no part
	for i, want := range []bool{true, true, true, false, false} {
		if got := r.Take(1); got != want {
			t.Errorf("time %d: %v, want %v", i+1, got, want)
		}
	}
	if !r.Take(2) {
		t.Error("another user may not do it once")
	}
}

func TestRateForgetsWhoMayDoEverythingAgain(t *testing.T) {
	r := Rate{AtOnce: 1, PerSecond: 1e12}
	for u := range User(mostRated + 100) {
		if !r.Take(u) {
			t.Fatalf("user %d may not do it once", u)
		}
	}
	if n := len(r.users); n > mostRated {
		t.Errorf("%d users are remembered, want %d at most", n, mostRated)
	}
}
