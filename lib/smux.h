/* smux frames (docs/protocol.md "Port sessions"): 8-byte header, little endian. */
#ifndef TNL_SMUX_H
#define TNL_SMUX_H
#include "lib/enc.h"
#include "lib/err.h"

#define TNL_SMUX_HDR 8u
#define TNL_SMUX_MAX_DATA 65535u
#define TNL_SMUX_STOCK_DATA 32768u
enum tnl_smux_cmd {
	TNL_SMUX_SYN,
	TNL_SMUX_FIN,
	TNL_SMUX_PSH,
	TNL_SMUX_NOP,
	TNL_SMUX_UPD,
	TNL_SMUX_RST /* ours, only when half-close is agreed: 4-byte LE reason */
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
#endif
