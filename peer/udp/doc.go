// Package udp is the seam between meshd and the network below it: datagrams in
// batches, with segmentation offload where the system has it.
package udp
