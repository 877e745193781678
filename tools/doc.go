// Package tools pins the programs that check the code (see go.mod), apart from
// the product's own dependencies.
package tools
