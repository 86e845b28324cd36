package crossing

import "fmt"

// Row is a row of the table.
type Row struct {
	Where    []int // the machines that A, B, C and perhaps D are on, from 1
	Asks     string
	Expected string
	play     func(*play)
}

func (r Row) String() string {
	s := ""
	for i, m := range r.Where {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%c on %d", 'A'+i, m)
	}
	return s + "; " + r.Asks
}

// Rows is the table.
var Rows = []Row{
	{[]int{1, 1, 1}, "B asks C for dynamic tracking", "C follows A, also while it is in a scope", (*play).oneMachine},
	{[]int{1, 1, 2}, "B asks C for dynamic tracking", "C acts as A, via B; tracking is static, and A's later change is not seen", (*play).lastAway},
	{[]int{1, 2, 2}, "A asks B, and B asks C, for dynamic tracking", "B acts as A, statically; C follows B's scope, and knows the origin", (*play).firstAway},
	{[]int{1, 2, 3}, "B, in its scope, asks C for any tracking", "no delegation; machine 3 hears of nobody", func(p *play) { p.threeMachines(3) }},
	{[]int{1, 2, 3}, "B, outside of its scope, asks C for dynamic and for static tracking", "C sees B", (*play).outsideScope},
	{[]int{1, 2, 1}, "B, in its scope, asks C for any tracking", "no delegation; machine 1 hears of nobody", func(p *play) { p.threeMachines(1) }},
	{[]int{1, 2, 2, 3}, "C, whom B called by a local pipe, asks D for any tracking", "no delegation; machine 3 hears of nobody", (*play).localBetween},
	{[]int{1, 2}, "A asks B for what does not travel", "refused, and machine 2 hears of nobody", (*play).levels},
}

// crosses reports whether not all are on one machine.
func (r Row) crosses() bool {
	for _, m := range r.Where {
		if m != r.Where[0] {
			return true
		}
	}
	return false
}
