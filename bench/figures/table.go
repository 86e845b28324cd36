package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

// row is one figure.
type row struct {
	What   string
	AtMost float64 // or information
	// The ratio, over the rounds.
	Median, Low, High float64
	// What was divided, each side's median, and in what. Without a unit the row is a count, without sides something that is stated in
	// that unit: nothing was divided.
	Left, Right float64
	Unit        string
}

// compare makes a row of what each round gave for the two sides.
func compare(what string, atMost float64, left, right []float64, unit string) row {
	ratios := divide(left, right)
	return row{
		What: what, AtMost: atMost,
		Median: median(ratios), Low: quantile(ratios, 0.1), High: quantile(ratios, 0.9),
		Left: median(left), Right: median(right), Unit: unit,
	}
}

// state makes a row of values that are not compared with any.
func state(what string, values []float64, unit string) row {
	return row{What: what, AtMost: information, Median: median(values), Low: quantile(values, 0.1), High: quantile(values, 0.9), Unit: unit}
}

// information marks a row that has no target.
const information = -1

func printTable(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tMEDIAN\tP10–P90\tAT MOST\tREACHED\tSIDES")
	for _, r := range rows {
		target, reached := "–", "–"
		if r.AtMost != information {
			target, reached = fmt.Sprintf("%.2f", r.AtMost), "yes"
			if r.Median > r.AtMost {
				reached = "NO"
			}
		}
		if r.Unit == "" {
			if r.AtMost != information {
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

// print hands rows to the process that started this one.
func print(rows []row) error { return json.NewEncoder(os.Stdout).Encode(rows) }
