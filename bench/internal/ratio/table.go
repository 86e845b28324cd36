package ratio

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

// Row is one figure.
type Row struct {
	What   string
	AtMost float64 // or Information
	// The ratio, over the rounds.
	Median, Low, High float64
	// What was divided, each side's median, and in what. Without a unit the row is a count, without sides something that is stated in
	// that unit: nothing was divided.
	Left, Right float64
	Unit        string
}

// Compare makes a row of what each round gave for the two sides.
func Compare(what string, atMost float64, left, right []float64, unit string) Row {
	ratios := Divide(left, right)
	return Row{
		What: what, AtMost: atMost,
		Median: Median(ratios), Low: Quantile(ratios, 0.1), High: Quantile(ratios, 0.9),
		Left: Median(left), Right: Median(right), Unit: unit,
	}
}

// State makes a row of values that are not compared with any.
func State(what string, values []float64, unit string) Row {
	return Row{What: what, AtMost: Information, Median: Median(values), Low: Quantile(values, 0.1), High: Quantile(values, 0.9), Unit: unit}
}

// Information marks a row that has no target.
const Information = -1

// PrintTable prints rows for people.
func PrintTable(w io.Writer, rows []Row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tMEDIAN\tP10–P90\tAT MOST\tREACHED\tSIDES")
	for _, r := range rows {
		target, reached := "–", "–"
		if r.AtMost != Information {
			target, reached = fmt.Sprintf("%.2f", r.AtMost), "yes"
			if r.Median > r.AtMost {
				reached = "NO"
			}
		}
		if r.Unit == "" {
			if r.AtMost != Information {
				target = fmt.Sprintf("%.3g", r.AtMost)
			}
			fmt.Fprintf(t, "%s\t%.3g\t–\t%s\t%s\t\n", r.What, r.Median, target, reached)
			continue
		}
		if r.Right == 0 {
			fmt.Fprintf(t, "%s\t%.4g\t%.4g–%.4g\t%s\t%s\t%s\n", r.What, r.Median, r.Low, r.High, target, reached, r.Unit)
			continue
		}
		fmt.Fprintf(t, "%s\t%.2f\t%.2f–%.2f\t%s\t%s\t%.4g : %.4g %s\n", r.What, r.Median, r.Low, r.High, target, reached, r.Left, r.Right, r.Unit)
	}
	t.Flush()
}

// Print hands rows to the process that started this one.
func Print(rows []Row) error { return json.NewEncoder(os.Stdout).Encode(rows) }
