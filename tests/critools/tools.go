//go:build tools

// Package critools pins what the system tests are driven with: crictl and
// critest. Nothing here is ever compiled; the imports make go.mod and go.sum
// complete for both, so that their versions are stated in one place.
package critools

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/framework"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
