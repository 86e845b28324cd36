package scopecheck

import (
	"go/token"
	"maps"
	"slices"
)

// spread gives every function the reasons of those that it calls. A function that runs in a scope has none: what it does is reported
// in it.
func (c *check) spread() {
	type caller struct {
		n   *node
		pos token.Pos
	}
	callers := map[*node][]caller{}
	type step struct {
		n    *node
		rule string
	}
	var queue []step
	for _, n := range c.order {
		for _, e := range n.edges {
			callers[e.to] = append(callers[e.to], caller{n, e.pos})
		}
		for _, p := range n.problems {
			said := slices.ContainsFunc(n.problems, func(q problem) bool { return q.pos == p.origin })
			if _, ok := n.reasons[p.rule]; !ok && !said && !n.entry && !c.silenced.at(c.pass.Fset, p.pos) {
				n.reasons[p.rule] = c.reason(p)
				queue = append(queue, step{n, p.rule})
			}
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		for _, from := range callers[s.n] {
			if _, ok := from.n.reasons[s.rule]; ok || from.n.entry || c.silenced.at(c.pass.Fset, from.pos) {
				continue
			}
			if s.rule == unlock.name && c.lockedBefore(from.n, from.pos) {
				continue
			}
			r := s.n.reasons[s.rule]
			if s.n.fn != nil {
				r.Way = append([]string{s.n.name}, r.Way...)
			}
			from.n.reasons[s.rule] = r
			queue = append(queue, step{from.n, s.rule})
		}
	}
}

// judge finds what is wrong in every function that runs in a scope.
func (c *check) judge() {
	for _, n := range c.order {
		if n.entry && n.syntax != nil {
			c.judgeIn(n, n, map[*node]bool{})
		}
	}
}

// judgeIn finds what is wrong in n, which is in the text of a function that runs in a scope, or that function.
func (c *check) judgeIn(entry, n *node, seen map[*node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	for _, p := range n.problems {
		c.find(p.pos, p.rule, p.message())
		c.found[len(c.found)-1].origin = p.origin
	}
	for _, e := range n.edges {
		c.judgeCall(entry, n, e.pos, e.to, map[*node]bool{}, seen)
	}
}

// judgeCall finds what is wrong with calling to. The variables on the way to it are those that were seen.
func (c *check) judgeCall(entry, n *node, pos token.Pos, to *node, variables, seen map[*node]bool) {
	switch {
	case to.entry && to.syntax != nil:
		return // what it does is found in it
	case to.syntax == nil:
		if variables[to] {
			return
		}
		variables[to] = true
		for _, e := range to.edges {
			c.judgeCall(entry, n, pos, e.to, variables, seen)
		}
	case to.fn == nil && entry.syntax.Pos() <= to.syntax.Pos() && to.syntax.End() <= entry.syntax.End():
		c.judgeIn(entry, to, seen)
	default:
		for _, rule := range slices.Sorted(maps.Keys(to.reasons)) {
			if rule != unlock.name || !c.lockedBefore(n, pos) {
				c.find(pos, rule, to.reasons[rule].message(to.name))
			}
		}
	}
}
