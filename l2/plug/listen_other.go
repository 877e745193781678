//go:build !unix

package plug

import "context"

func listenVDE(context.Context, string) (Listener, error)    { return nil, ErrUnsupported }
func listenStream(context.Context, string) (Listener, error) { return nil, ErrUnsupported }
func listenDgram(context.Context, string) (Listener, error)  { return nil, ErrUnsupported }
