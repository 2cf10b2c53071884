//go:build !unix

package cluster_test

import (
	"errors"
	"testing"

	"rowcast/sql/cluster"
)

func TestUnsupportedSystem(t *testing.T) {
	t.Parallel()
	_, obtain := cluster.Obtain(t.Context(), nil)
	_, dir := cluster.DefaultDir("test")
	start := (&cluster.Cluster{Dir: t.TempDir(), Programs: cluster.Programs{Dir: t.TempDir()}}).Start(t.Context())
	for name, err := range map[string]error{"Obtain": obtain, "DefaultDir": dir, "Start": start} {
		if !errors.Is(err, cluster.ErrUnsupported) {
			t.Errorf("%s: got error %v, want ErrUnsupported", name, err)
		}
	}
}
