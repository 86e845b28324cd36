package scopecheck

import (
	"go/token"
	"slices"
)

// findUnlocks finds the calls of runtime.UnlockOSThread that take away somebody else's lock.
func (c *check) findUnlocks() {
	for _, n := range c.order {
		n.problems = slices.DeleteFunc(n.problems, func(p problem) bool { return p.rule == unlock.name && c.lockedBefore(n, p.pos) })
		for _, pos := range n.unlocks {
			if !c.lockedBefore(n, pos) {
				n.problems = append(n.problems, problem{
					pos: pos, rule: unlock.name, what: "runtime.UnlockOSThread without a LockOSThread of one's own",
					happens: unlock.happens, instead: unlock.instead,
				})
			}
		}
	}
}

// lockedBefore tells whether a function has locked its goroutine before a place in it, itself or by a function that does it. What a
// literal is written in counts, up to the function that runs in the scope.
func (c *check) lockedBefore(n *node, pos token.Pos) bool {
	for ; n != nil; n = n.parent {
		if slices.ContainsFunc(n.locks, func(at token.Pos) bool { return at < pos }) ||
			slices.ContainsFunc(n.edges, func(e edge) bool { return e.pos < pos && e.to.leavesLocked() }) {
			return true
		}
		if n.entry {
			return false
		}
	}
	return false
}

// leavesLocked tells whether a function locks for its caller. What it defers in a literal does not count.
func (n *node) leavesLocked() bool { return len(n.locks) > len(n.unlocks) }
