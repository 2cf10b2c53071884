package main

// Run is the whole program but for signals and the exit.
var Run = run
