// Checks histories of registers for linearizability with porcupine, a checker that nobody here wrote.
//
// It reads a JSON array of operations from standard input: the key, what was done ("write" or "read"), the value (null
// for a read of what was never written), when it was sent and when it was answered, in nanoseconds, and by whom. A
// write without an answer may take effect at any time afterwards or never. Exit code 1: no order explains them.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

type operation struct {
	Key      int    `json:"key"`
	Kind     string `json:"kind"`
	Value    *int64 `json:"value"`
	Sent     int64  `json:"sent"`
	Answered int64  `json:"answered"`
	Client   int    `json:"client"`
}

type state struct {
	known bool
	value int64
}

var register = porcupine.Model{
	Init: func() interface{} { return state{} },
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[int][]porcupine.Operation{}
		for _, each := range history {
			key := each.Input.(operation).Key
			byKey[key] = append(byKey[key], each)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Step: func(before, input, _ interface{}) (bool, interface{}) {
		asked := input.(operation)
		if asked.Kind == "write" {
			return true, state{true, *asked.Value}
		}
		seen := state{known: asked.Value != nil}
		if seen.known {
			seen.value = *asked.Value
		}
		return seen == before.(state), before
	},
}

func main() {
	var told []operation
	if err := json.NewDecoder(os.Stdin).Decode(&told); err != nil {
		fmt.Fprintln(os.Stderr, "malformed history:", err)
		os.Exit(2)
	}
	history := make([]porcupine.Operation, len(told))
	for index, each := range told {
		history[index] = porcupine.Operation{ClientId: each.Client, Input: each, Call: each.Sent, Output: each, Return: each.Answered}
	}
	result := porcupine.CheckOperationsTimeout(register, history, 5*time.Minute)
	fmt.Printf("%d operations: %s\n", len(history), result)
	if result != porcupine.Ok {
		os.Exit(1)
	}
}
