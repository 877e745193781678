package peer

// SendCopy sends the bytes of a copy as they are.
func SendCopy(to *Remote, body []byte) { to.sendCopy(body) }
