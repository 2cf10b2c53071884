//go:build !unix

package stream_test

import (
	"errors"
	"time"
)

// limitBuffer does nothing on systems other than Unix. It exists so that the tests compile.
func limitBuffer(uintptr, int) error { return nil }

func writeTo(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func stopProcess(int) error { return errors.ErrUnsupported }

func killProcess(int) error { return errors.ErrUnsupported }

func cpu() (user, all time.Duration) { return 0, 0 }
