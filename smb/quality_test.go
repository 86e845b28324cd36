package smb

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

func TestQualityOfService(t *testing.T) {
	q := func(l guise.Level, tr guise.Tracking, effectiveOnly bool) *guise.QoS {
		return &guise.QoS{Level: l, Tracking: tr, EffectiveOnly: effectiveOnly}
	}
	for _, qos := range []*guise.QoS{
		nil, {}, q(guise.Impersonation, guise.Static, false), q(guise.Impersonation, guise.Dynamic, false), q(guise.LevelUnstated, guise.Dynamic, false),
	} {
		if err := checkQuality(qos, nil); err != nil {
			t.Errorf("%+v: %v", qos, err)
		}
	}
	for _, qos := range []*guise.QoS{
		q(guise.Delegation, 0, false), q(guise.Identification, 0, false), q(guise.Anonymous, guise.Dynamic, false), q(guise.Impersonation, 0, true), q(0, 0, true),
	} {
		if err := checkQuality(qos, nil); !errors.Is(err, guise.ErrLevel) {
			t.Errorf("%+v: %v, want ErrLevel", qos, err)
		}
	}
	if err := checkQuality(q(guise.Delegation, 0, false), nil); !strings.Contains(err.Error(), "no credentials are handed on") {
		t.Errorf("Delegation is refused without the reason: %v", err)
	}
	if err := checkQuality(q(guise.Delegation+1, 0, false), nil); err == nil {
		t.Error("a level that there is not is taken")
	}

	worn, err := token.FromIDs(61001, 61001, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := token.Statement{Capabilities: token.Capabilities{Effective: ^token.CapSet(0), Permitted: ^token.CapSet(0)}}
	for _, test := range []struct {
		level         guise.Level
		effectiveOnly bool
		fine          bool
	}{
		{guise.LevelUnstated, false, true}, {guise.Impersonation, false, true}, {guise.Delegation, false, true},
		{guise.Identification, false, false}, {guise.Anonymous, false, false}, {guise.Impersonation, true, false},
	} {
		s := all
		s.Level, s.EffectiveOnly = test.level, test.effectiveOnly
		if err := checkQuality(nil, worn.Restrict(s)); (err == nil) != test.fine || err != nil && !errors.Is(err, guise.ErrLevel) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// Nothing is sent for what can't be had.
func TestRefusedBeforeAnythingIsSent(t *testing.T) {
	server := newCounter(t)
	for _, qos := range []guise.QoS{{Level: guise.Delegation}, {Level: guise.Anonymous}, {EffectiveOnly: true}} {
		d := Dialer{QoS: &qos, Address: server.address, Password: &Password{User: "alice", Secret: "secret"}}
		c, err := d.Dial(t.Context(), `\\host\pipe\x`)
		if !errors.Is(err, guise.ErrLevel) {
			t.Errorf("%v: %v, %v", qos, c, err)
		}
		var op *guise.OpError
		if !errors.As(err, &op) || op.Op != "dial" || op.Pipe != `\\host\pipe\x` {
			t.Errorf("%v: the error is %v", qos, fmt.Sprintf("%#v", err))
		}
	}
	server.wantNone()
}
