package announce

import (
	"sync/atomic"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/token"
)

// Proof is a token socket that was believed, kept for passing it on. It is closed when the last of its holders lets go.
type Proof struct {
	fd      int
	owner   uint32       // a uid: whose client it came from
	token   *token.Token // as the kernel shows it
	holders atomic.Int32
}

// newProof takes over fd, for one holder.
func newProof(fd int, owner uint32, t *token.Token) *Proof {
	p := &Proof{fd: fd, owner: owner, token: t}
	p.holders.Store(1)
	return p
}

// Hold adds a holder. A nil Proof has none.
func (p *Proof) Hold() *Proof {
	if p != nil {
		p.holders.Add(1)
	}
	return p
}

// Release takes a holder away.
func (p *Proof) Release() {
	if p != nil && p.holders.Add(-1) == 0 {
		discard.Socket(p.fd, p.owner)
	}
}

// LookAgain is [token.Token.LookAgain] for t, which p proved.
func (p *Proof) LookAgain(t *token.Token) *token.Token { return t.LookAgain(p.fd) }
