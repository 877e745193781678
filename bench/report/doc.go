// Package report turns the samples of a benchmark into medians, ratios, a
// verdict, tables and plots. It runs nothing and reads no clock: what it is
// given it can be given again, from the JSON of an earlier run.
//
//	samples -> Result -> JSON
//	             |
//	             +-> Stat (median, least, most)  -> Tables, Plots
//	             +-> Judge (goals: must, aim)    -> Tables
package report
