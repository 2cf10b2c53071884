//go:build !unix

package server

func descriptors() uint64 { return maxDescriptors }
