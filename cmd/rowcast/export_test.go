package main

// Run is the whole program, except for signals and the exit.
var Run = run
