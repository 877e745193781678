package api

import (
	"context"
	"net/http"
)

// What an admin does, and leaving: both ends of it.

func (s *server) revoke(w http.ResponseWriter, r *http.Request) error {
	var q revokeRequest
	if err := body(w, r, &q); err != nil {
		return err
	}
	if err := CheckName(q.Name); err != nil {
		return err
	}
	m, err := s.node.Revoke(r.Context(), RevokeOptions(q))
	return s.member(w, m, err)
}

func (s *server) role(w http.ResponseWriter, r *http.Request) error {
	var q roleRequest
	if err := body(w, r, &q); err != nil {
		return err
	}
	if err := CheckName(q.Name); err != nil {
		return err
	}
	if err := CheckRoles(q.Roles); err != nil {
		return err
	}
	m, err := s.node.SetRoles(r.Context(), q.Name, q.Roles)
	return s.member(w, m, err)
}

func (s *server) member(w http.ResponseWriter, m Member, err error) error {
	if err != nil {
		return err
	}
	m.Roles, m.Also, m.Expires = list(m.Roles), list(m.Also), utc(m.Expires)
	s.answer(w, http.StatusOK, m)
	return nil
}

func (s *server) leave(w http.ResponseWriter, r *http.Request) error {
	longRequest(w)
	var q leaveRequest
	if err := body(w, r, &q); err != nil {
		return err
	}
	if err := s.node.Leave(r.Context(), q.Force); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, struct{}{})
	return nil
}

// Revoke ends a membership for good.
func (c *Client) Revoke(ctx context.Context, o RevokeOptions) (Member, error) {
	var m Member
	err := c.call(ctx, "revoke", revokeRequest(o), &m)
	return m, err
}

// SetRoles gives a member these roles and no others.
func (c *Client) SetRoles(ctx context.Context, name string, roles []string) (Member, error) {
	var m Member
	err := c.call(ctx, "role", roleRequest{Name: name, Roles: roles}, &m)
	return m, err
}

// Leave asks the daemon to leave the network for good.
func (c *Client) Leave(ctx context.Context, force bool) error {
	return c.call(ctx, "leave", leaveRequest{Force: force}, nil)
}
