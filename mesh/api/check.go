package api

// Check is one thing that `meshd doctor` has looked at.
type Check struct {
	Name   string     `json:"name"`
	State  CheckState `json:"state"`
	Text   string     `json:"text"`
	Remedy string     `json:"remedy"`
}

// CheckState is the outcome of a [Check].
type CheckState string

// The outcomes. Skipped is what cannot be looked at here, and says why.
const (
	CheckOK      CheckState = "ok"
	CheckWarning CheckState = "warning"
	CheckFailed  CheckState = "failed"
	CheckSkipped CheckState = "skipped"
)
