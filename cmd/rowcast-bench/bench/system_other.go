//go:build !unix

package bench

import (
	"math"
	"syscall"
	"time"
)

func maxDescriptors() (uint64, error)                { return math.MaxUint64, nil }
func ownGroup() *syscall.SysProcAttr                 { return nil }
func usedCPU() (user, system time.Duration, _ error) { return 0, 0, errUnmeasured }
func writeSocket(uintptr, []byte) (int, error)       { return 0, errUnmeasured }
