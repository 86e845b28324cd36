package main

import "testing"

// One user's turn keeps no other user waiting, and nothing is kept of it.
func TestStartingIsInTurnForEachUser(t *testing.T) {
	var s starting
	first := s.wait(1)
	second := make(chan func())
	go func() { second <- s.wait(1) }()
	s.wait(2)()
	select {
	case <-second:
		t.Error("two commands of one user start at once")
	default:
	}
	first()
	(<-second)()
	if len(s.users) != 0 {
		t.Errorf("%d users are kept", len(s.users))
	}
}
