package server

import "testing"

func TestDivideDescriptors(t *testing.T) {
	t.Parallel()
	const howToRaise = "raise the limit (ulimit -n, or LimitNOFILE= in a systemd unit)"
	for _, tt := range []struct {
		available uint64
		streams   int
		want      division
		wantErr   string
	}{
		{1 << 20, 0, division{1<<20 - 64 - 4 - 4 - 4096, 4096}, ""},
		{1 << 63, 0, division{1<<20 - 64 - 4 - 4 - 4096, 4096}, ""},
		{1024, 0, division{1024 - 64 - 4 - 4 - 128, 128}, ""},
		{1024, 100, division{100, 128}, ""},
		{1024, 824, division{824, 128}, ""},
		{1024, 825, division{}, "--max-connections: this process may have 1024 open files, which is enough for 824 streams, not for 825: " +
			"lower --max-connections, or " + howToRaise},
		{256, 0, division{256 - 64 - 4 - 4 - 32, 32}, ""},
		{64, 0, division{64 - 16 - 4 - 4 - 16, 16}, ""},
		{29, 0, division{}, "--replays: 4 connections for replays leave no open files for streams, because this process may have only 29: " +
			"lower --replays, or " + howToRaise},
		{28, 0, division{}, "this process may have only 28 open files, which leaves none for streams: " + howToRaise},
		{0, 1, division{}, "this process may have only 0 open files, which leaves none for streams: " + howToRaise},
	} {
		got, err := divideDescriptors(tt.available, tt.streams, 4, ownConnections)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != tt.want || text != tt.wantErr {
			t.Errorf("%d descriptors, %d streams: got %+v and the error %q, want %+v and the error %q", tt.available, tt.streams, got, text, tt.want, tt.wantErr)
		}
	}
}
