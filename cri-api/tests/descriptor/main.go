// Command descriptor prints the FileDescriptorProto of CRI v1, as the pinned Go
// module k8s.io/cri-api carries it, in base64. The test cri-api/tests/descriptor.rs
// compares it with the contract that nexcage is compiled from.
package main

import (
	"encoding/base64"
	"fmt"
	"os"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	file := (&runtime.VersionRequest{}).ProtoReflect().Descriptor().ParentFile()
	raw, err := proto.Marshal(protodesc.ToFileDescriptorProto(file))
	if err != nil {
		fmt.Fprintln(os.Stderr, "encode the descriptor:", err)
		os.Exit(1)
	}
	fmt.Println(base64.StdEncoding.EncodeToString(raw))
}
