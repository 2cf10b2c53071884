package main

// Main is the function main. It handles signals and ends the process, so tests run it in another process.
var Main = main
