package scopecheck

import (
	"fmt"
	"go/types"
	"maps"
	"slices"
)

// summary is what other packages have to know of a function.
type summary struct {
	Reasons []reason // why not to call it in a scope
	Calls   []int    // the parameters that it calls
	Enters  []int    // the parameters that it runs in a scope
	Locks   bool     // it leaves the thread locked
}

func (*summary) AFact() {}

func (s *summary) String() string {
	var rules []string
	for _, r := range s.Reasons {
		rules = append(rules, r.Rule)
	}
	return fmt.Sprintf("in a scope: %v, calls %v, enters %v, locks %v", rules, s.Calls, s.Enters, s.Locks)
}

// export tells other packages what they have to know.
func (c *check) export() {
	for _, n := range c.order {
		if n.fn == nil || n.syntax == nil || !n.fn.Exported() {
			continue
		}
		s := summary{Locks: n.leavesLocked()}
		for _, rule := range slices.Sorted(maps.Keys(n.reasons)) {
			s.Reasons = append(s.Reasons, n.reasons[rule])
		}
		for i := range n.fn.Signature().Params().Len() {
			u := c.doesWithParameter(n.fn, n, i)
			if u.calls {
				s.Calls = append(s.Calls, i)
			}
			if u.enters {
				s.Enters = append(s.Enters, i)
			}
		}
		if s.Reasons != nil || s.Calls != nil || s.Enters != nil || s.Locks {
			c.pass.ExportObjectFact(n.fn, &s)
		}
	}
}

// imported returns what another package told of a function, nil if there is nothing.
func (c *check) imported(fn *types.Func) *summary {
	if fn.Pkg() == nil || fn.Pkg() == c.pass.Pkg {
		return nil
	}
	s := new(summary)
	if !c.pass.ImportObjectFact(fn, s) {
		return nil
	}
	return s
}
