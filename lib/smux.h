/* smux frames (docs/protocol.md "Port sessions"): 8-byte header, little endian,
 * cut anywhere by the messages that carry them.  The parser knows frames, not
 * streams: what a frame means for its stream is the session's. */
#ifndef TNL_SMUX_H
#define TNL_SMUX_H
#include "lib/enc.h"
#include "lib/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_SMUX_HDR 8u
#define TNL_SMUX_MAX_DATA 65535u
#define TNL_SMUX_STOCK_DATA 32768u
#define TNL_SMUX_WORDS 120u /* bytes of text behind an RST's reason, at most */

enum tnl_smux_cmd {
	TNL_SMUX_SYN, /* from the agent, where Reverse is agreed: with the words of lib/reverse.h */
	TNL_SMUX_FIN,
	TNL_SMUX_PSH,
	TNL_SMUX_NOP,
	TNL_SMUX_UPD, /* version 2: consumed, window */
	TNL_SMUX_RST, /* ours, only when half-close is agreed: 4-byte LE reason, then words when those are agreed */
	TNL_SMUX_OPEN /* ours, only when agreed: 4-byte LE kind; a SYN with more to it, or the answer to one */
};

struct tnl_smux_frame {
	uint8_t version, cmd;
	uint16_t len;
	uint32_t id;
};

static inline void tnl_smux_write(uint8_t *p, const struct tnl_smux_frame *f)
{
	p[0] = f->version;
	p[1] = f->cmd;
	tnl_put_le16(p + 2, f->len);
	tnl_put_le32(p + 4, f->id);
}
static inline void tnl_smux_read(const uint8_t *p, struct tnl_smux_frame *f)
{
	f->version = p[0];
	f->cmd = p[1];
	f->len = tnl_get_le16(p + 2);
	f->id = tnl_get_le32(p + 4);
}

struct tnl_smux_parser {
	int version;
	bool rst;	/* RST is a command */
	bool rst_words; /* and may have words behind its reason */
	bool open;	/* OPEN is a command */
	bool syn_words; /* SYN may have words: who opens a stream from the agent's side (lib/reverse.h) */
	struct tnl_smux_frame cur;
	uint32_t left; /* PSH bytes still to come */
	uint8_t head[TNL_SMUX_HDR + 4 + TNL_SMUX_WORDS];
	unsigned have, need;
	const char *bad_field; /* after TNL_EPROTO: what was wrong with the frame */
	unsigned bad_value;
};

struct tnl_smux_event { /* a whole frame, or a part of a PSH */
	enum tnl_smux_cmd cmd;
	uint32_t id;
	/* PSH: bytes of the stream, where they stand in the input; RST, SYN: its words, until the next call */
	const uint8_t *data;
	size_t len;
	uint32_t consumed, window; /* UPD */
	uint32_t reason;	   /* RST */
	uint32_t kind;		   /* OPEN */
};

void tnl_smux_parser_init(struct tnl_smux_parser *p, int version, bool rst);
/* Takes from *in (and *n) up to the next event: 1 with *e filled; 0: all is taken and more is needed;
 * TNL_EPROTO: no such frame, the connection is beyond repair. A PSH without bytes is no event. */
int tnl_smux_next(struct tnl_smux_parser *p, const uint8_t **in, size_t *n, struct tnl_smux_event *e) TNL_MUST_USE;

#endif
