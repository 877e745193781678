package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"meshd/integration/lab"
	"meshd/mesh/api"
)

const (
	// demoState is each node's state, in the /run that its host has for itself.
	demoState = "/run/meshd-demo"
	// demoStep bounds each step: what takes longer has failed.
	demoStep = 30 * time.Second
	// demoDelay is one way between a site and the internet.
	demoDelay = 5 * time.Millisecond
)

// enterLab must come first in main: a program on one of the lab's hosts is this program started again.
func enterLab() { lab.Shim() }

// demo is the three sites while they are there.
type demo struct {
	*narrator
	lab                  *lab.Lab
	office               *lab.Site
	nas, desktop, laptop *demoNode
}

// demoNode is a node with the address that it has on the segment.
type demoNode struct {
	*lab.Node
	name string
	addr netip.Addr
}

// demo shows the main job on one machine.
func (a *app) demo(ctx context.Context) error {
	if err := lab.EnterUserNamespace(); err != nil {
		return labError(err)
	}
	if err := tunUsable(); err != nil {
		return err
	}
	l, err := lab.New(lab.Options{Name: "demo"})
	if err != nil {
		return labError(err)
	}
	d := &demo{narrator: newNarrator(a), lab: l}
	err = d.run(ctx)
	err = errors.Join(err, l.Close())
	if ctx.Err() != nil {
		return &api.Error{Code: api.CodeFailed, What: "demo", Why: "interrupted; everything is removed"}
	}
	if err != nil {
		return labError(err)
	}
	d.headline("That was all. Nothing is left of it on this machine.")
	return nil
}

// tunUsable says early what else would fail in the middle: in a user namespace too, TAPs need the device.
func tunUsable() error {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err == nil {
		return f.Close()
	}
	return &api.Error{Code: api.CodeFailed, What: "demo", Why: err.Error(), Err: err, Remedy: "run it as root, or let users open " + tunDevice}
}

// labError makes a remedy of what follows the first line of an error of the lab.
func labError(err error) error {
	why, remedy, _ := strings.Cut(strings.TrimPrefix(err.Error(), "lab: "), "\n")
	return &api.Error{Code: api.CodeFailed, What: "demo", Why: why, Remedy: oneLine(remedy), Err: err}
}

// run does one step after the other.
func (d *demo) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.build, d.found, d.joinByApproval, d.joinByInvite, d.meet, d.pingAll, d.broadcast, d.multicast, d.roam, d.end,
	} {
		if err := d.within(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) within(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	return step(ctx)
}

// build makes the internet, the sites and their machines.
func (d *demo) build(ctx context.Context) error {
	d.headline("An internet with three sites, in network namespaces of this one machine")
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	link := lab.Link{Delay: demoDelay}
	internet := d.lab.Internet("internet")
	home := internet.Site("home", lab.SiteConfig{V4: true, Link: link})
	d.office = internet.Site("office", lab.SiteConfig{V4: true, Link: link})
	cafe := internet.Site("cafe", lab.SiteConfig{V4: true, NAT: lab.Home, Link: link})
	place := func(name string, s *lab.Site) *demoNode {
		n := &demoNode{Node: lab.NewNode(s.Host(name), binary, demoState), name: name}
		n.Logf = func(format string, args ...any) {
			d.line(name, strings.TrimPrefix(fmt.Sprintf(format, args...), name+": "))
		}
		return n
	}
	d.nas, d.desktop, d.laptop = place("nas", home), place("desktop", d.office), place("laptop", cafe)
	if err := d.lab.Ready(ctx); err != nil {
		return err
	}
	internet.SetName("home.example", d.nas.Host.Addr4())
	d.say("home    a NAS with a public address, %v, known as home.example", d.nas.Host.Addr4())
	d.say("office  a desktop with a public address, %v", d.desktop.Host.Addr4())
	d.say("cafe    a laptop with a private address, %v, behind a NAT at %v", d.laptop.Host.Addr4(), cafe.Public())
	return nil
}

// up starts a node and notes its address once it is ready.
func (d *demo) up(ctx context.Context, n *demoNode, stdin string, args ...string) error {
	typed := "meshd up"
	for _, arg := range args {
		typed += " " + arg
	}
	d.command(n.name, typed)
	return n.UpWithInput(strings.NewReader(stdin), append(args, "--log-level", "error")...)
}

// settle waits until the node is ready and notes its address.
func (d *demo) settle(ctx context.Context, n *demoNode, began time.Time) error {
	if err := n.Ready(ctx); err != nil {
		return err
	}
	d.say("%s was ready after %v", n.name, time.Since(began).Round(time.Millisecond))
	var s api.Status
	if err := n.JSON(ctx, &s, "status"); err != nil {
		return err
	}
	if len(s.Self.Addresses) == 0 {
		return fmt.Errorf("%s has no address on the segment", n.name)
	}
	n.addr = s.Self.Addresses[0]
	return nil
}

// found founds the network at home.
func (d *demo) found(ctx context.Context) error {
	d.headline("The first machine founds a network")
	began := time.Now()
	if err := d.up(ctx, d.nas, "", "--advertise", "home.example:51830"); err != nil {
		return err
	}
	return d.settle(ctx, d.nas, began)
}

// joinByApproval joins from the office, with nothing but home's name.
func (d *demo) joinByApproval(ctx context.Context) error {
	d.headline("The desktop joins by home's name alone: both sides show six words, and an admin compares them")
	began := time.Now()
	if err := d.up(ctx, d.desktop, "", "--join", "home.example"); err != nil {
		return err
	}
	line, err := d.desktop.Line(ctx, "waiting for approval: ")
	if err != nil {
		return err
	}
	shown, err := api.Words(strings.TrimPrefix(line, "waiting for approval: "))
	if err != nil {
		return err
	}
	if err := d.requested(ctx, shown); err != nil {
		return err
	}
	d.command(d.nas.name, "meshd approve "+shown)
	out, err := d.nas.Run(ctx, "approve", shown)
	if err != nil {
		return err
	}
	d.line(d.nas.name, strings.TrimSpace(out))
	return d.settle(ctx, d.desktop, began)
}

// requested waits until home lists the request with the same words that the joiner shows.
func (d *demo) requested(ctx context.Context, words string) error {
	for {
		var reqs []api.Request
		if err := d.nas.JSON(ctx, &reqs, "requests"); err != nil {
			return err
		}
		if len(reqs) > 0 {
			d.command(d.nas.name, "meshd requests")
			d.line(d.nas.name, reqs[0].Words+"  "+reqs[0].Name)
			if reqs[0].Words != words {
				return errors.New("the words differ: somebody is in between")
			}
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("wait for the request: %w", err)
		}
	}
}

// joinByInvite joins from behind the NAT, without anybody waiting.
func (d *demo) joinByInvite(ctx context.Context) error {
	d.headline("The laptop joins with an invite: nobody has to wait")
	d.command(d.nas.name, "meshd invite")
	invite, err := d.nas.Run(ctx, "invite")
	if err != nil {
		return err
	}
	d.line(d.nas.name, shorten(strings.TrimSpace(invite)))
	began := time.Now()
	if err := d.up(ctx, d.laptop, invite, "--join", "-"); err != nil {
		return err
	}
	return d.settle(ctx, d.laptop, began)
}

// shorten shows the beginning of a long line.
func shorten(s string) string {
	const show = 40
	if len(s) <= show {
		return s
	}
	return s[:show] + "..."
}

// all are the nodes in the order in which they came.
func (d *demo) all() []*demoNode { return []*demoNode{d.nas, d.desktop, d.laptop} }

// meet waits until everybody knows everybody.
func (d *demo) meet(ctx context.Context) error {
	d.headline("Everybody knows everybody, also the two that have never met")
	for _, n := range d.all() {
		args := []string{"wait", "--peers", "2", "--timeout", demoStep.String()}
		for _, other := range d.all() {
			if other == n {
				continue
			}
			if _, err := n.Run(ctx, append(args, "--peer", other.name)...); err != nil {
				return err
			}
		}
	}
	var s api.Status
	if err := d.laptop.JSON(ctx, &s, "status"); err != nil {
		return err
	}
	d.command(d.laptop.name, "meshd status")
	for line := range strings.Lines(d.app.style.table(statusRows(&s, time.Now()))) {
		d.raw(d.laptop.name, strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// end leaves cleanly.
func (d *demo) end(context.Context) error {
	d.headline("Everybody leaves")
	for _, n := range d.all() {
		if err := n.Interrupt(); err != nil {
			return err
		}
	}
	return nil
}
